"""Settings on a real machine: real files, folders, ports."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from edge_runtime.cli import main
from edge_runtime.config import EdgeConfig
from edge_runtime.config_check import check_settings, read_config
from edge_runtime.config_file import _TABLES, read_settings
from edge_runtime.errors import ConfigError
from tests.edge_runtime.test_config import HOURS_EXPECTED, KEY, write


def settings(folder: Path, *, cloud: str = "", rest: str = "") -> Path:
    """Write a file that is right but for what `cloud` and `rest` add."""
    (folder / "state").mkdir(exist_ok=True)
    url = "" if "url" in cloud else 'url = "https://cloud.local"\n'
    return write(folder, f'state = "state"\n[cloud]\n{url}keys = ["{KEY}"]\n{cloud}\n{rest}\n')


def check(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    """Run the command; return its exit code and what it names on stderr, without the file's folder."""
    code = main(["check", "--config", str(path), *options])
    return code, capsys.readouterr().err.replace(f"{path.parent}/", "").splitlines()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_right_settings_are_summed_up(tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]):
    path = settings(tmp_path, rest=f"[api]\nport = {free_port}")

    assert main(["check", "--config", str(path)]) == 0

    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "the settings are right"
    assert f"state       {tmp_path}/state" in shown
    assert "cloud       https://cloud.local, 1 key" in shown
    assert f"api         127.0.0.1 port {free_port}" in shown


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "token").chmod(0o644)
    (tmp_path / "ca.pem").write_text("no certificate\n")
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = settings(
            tmp_path,
            cloud='token_file = "token"\nca_file = "ca.pem"\ntimeout_s = "long"',
            rest=(
                f'[api]\nport = {port}\n[download]\nhours = "at night"\n'
                f'[watch]\nfolder = "file/in"\n[mqtt]\nhost = "b"\nuser = "u"\npassword_file = "none"\ntls = 1\n'
            ),
        )
        code, named = check(path, capsys)

    assert code == 1
    in_use = (
        f"listening on 127.0.0.1 port {port} fails (Address already in use): choose another, or end what listens there"
    )
    none = "none: cannot be read (No such file or directory): give it to the user of the daemon"
    assert named == [
        "edge.toml:7: cloud.timeout_s is 'long': expected a number from 0.001 to 86400",
        f"edge.toml:11: download.hours is 'at night': {HOURS_EXPECTED}",
        "edge.toml:18: mqtt.tls is 1: expected true or false",
        "edge.toml:5: cloud.token_file will not do: token: has mode 0644, too open for a secret: chmod o=,g-w token",
        f"edge.toml:17: mqtt.password_file will not do: {none}",
        "edge.toml:6: cloud.ca_file is ca.pem, which holds no certificates (NO_CERTIFICATE_OR_CRL_FOUND): expected PEM",
        "edge.toml:13: watch.folder is file/in, but file is no folder: choose another name",
        f"edge.toml:9: api.port cannot be had: {in_use}",
    ]


def test_the_result_can_be_read_by_programs(tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]):
    path = settings(tmp_path, rest=f"[api]\nport = {free_port}\n[monitor]\nperiod = 0")

    assert main(["check", "--config", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "problems": [
            {
                "where": f"{path}:9",
                "setting": "monitor.period",
                "problem": "is 0: expected a whole number from 1 to 1000000000",
            }
        ],
    }
    path = settings(tmp_path, rest=f"[api]\nport = {free_port}")
    assert main(["check", "--config", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


def test_a_token_is_for_the_owner_and_for_nobody_on_the_way(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o640)  # as systemd hands over credentials: the group may read
    path = settings(tmp_path, cloud='token_file = "token"')
    assert read_config(path, {}).cloud.token_file == token

    with pytest.raises(ConfigError, match=r"everybody on the way could read the token: use https://"):
        read_config(path, {"cloud": "http://cloud.local"})
    for url in ("http://127.0.0.1:80", "http://localhost", "http://[::1]:8080"):
        assert read_config(path, {"cloud": url}).cloud.url == url

    for content in (b"", b"two\nlines", b"\xff\xfe", b"x" * 5000):
        token.write_bytes(content)
        with pytest.raises(ConfigError, match=r"edge.toml:5: .* is not one line of printable text"):
            read_config(path, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_folder_of_another_user_is_named(tmp_path: Path):
    """As the daemon's own user sees it; root may write everywhere."""
    path = settings(tmp_path)
    tmp_path.chmod(0o755)
    for parent in itertools.takewhile(lambda folder: folder != Path(tempfile.gettempdir()), tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o755)
    (tmp_path / "state").chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        problems = [str(problem) for problem in _problems(path)]
        os._exit(0 if len(problems) == 1 and "cannot be written to by this user" in problems[0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _problems(path: Path) -> list[object]:
    found = read_settings(path, {})
    check_settings(found)
    return list(found.problems)


def test_a_socket_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    for name, message in (
        ("taken", "which is there already and is no socket"),
        ("x" * 120, "is longer than 107 bytes"),
        ("taken/edge.sock", "but .*taken is no folder"),
    ):
        path = settings(tmp_path, rest=f'[api]\nsocket = "{name}"')
        with pytest.raises(ConfigError, match=message):
            read_config(path, {})


def test_a_host_that_is_not_this_machine_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = settings(tmp_path, rest='[api]\nhost = "192.0.2.1"')

    code, named = check(path, capsys)

    assert code == 1
    assert re.fullmatch(r"edge.toml:\d+: api.port cannot be had: listening on 192.0.2.1 port 8765 fails .*", named[0])


def test_the_daemon_refuses_what_the_check_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = settings(tmp_path, cloud='ca_file = "none.pem"', rest="[monitor]\nperiod = 0")

    assert main(["run", "--config", str(path)]) == 1

    error = capsys.readouterr().err
    assert error.startswith(f"capnn-edge: error: {path}:7: monitor.period is 0: expected")
    assert error.endswith("(and 1 more: capnn-edge check names them all)\n")


def test_the_example_passes_and_shows_every_setting_with_its_default(
    tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
):
    assert main(["example", "config"]) == 0
    example = capsys.readouterr().out
    path = write(tmp_path, example)
    assert main(["check", "--config", str(path), "--state", str(tmp_path), "--port", str(free_port)]) == 0
    plain = read_config(path, {"state": str(tmp_path)})

    for name, secret in (("token", "t"), ("mqtt-password", "p")):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    # Uncommented, all of it can be read; what has a default shows it.
    full = re.sub(r"(?m)^# (\[\w+\]|\w+ = .*)$", r"\1", example)
    full = re.sub(r"(?m)^(socket|ca_file) = .*\n", "", full)
    settings = read_settings(write(tmp_path, full), {"state": str(tmp_path)})
    assert settings.problems == []
    config = settings.config()
    assert (config.api, config.monitor, config.probation) == (plain.api, plain.monitor, plain.probation)
    assert config.mqtt is not None
    assert config.watch is not None
    named = set(re.findall(r"(?m)^(?:# )?(\w+) = ", example))
    assert named == {name for name in _names(EdgeConfig) if name not in _TABLES}


def _names(kind: type) -> set[str]:
    names = {setting.name for setting in dataclasses.fields(kind)}
    for table in _TABLES.values():
        names |= {setting.name for setting in dataclasses.fields(table)}
    return names


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    assert main(["example", "unit"]) == 0
    unit = tmp_path / "capnn-edge.service"
    unit.write_text(capsys.readouterr().out.replace("/usr/local/bin/capnn-edge", "/bin/true"))

    verify = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (verify.returncode, verify.stderr) == (0, "")

    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    security = subprocess.run(command, capture_output=True, text=True, check=False)
    assert security.returncode == 0, security.stdout
