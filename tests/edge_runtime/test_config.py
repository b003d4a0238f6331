from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.config import EdgeConfig, read_config
from edge_runtime.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "edge.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_sets_what_it_names_and_defaults_the_rest(tmp_path: Path):
    path = written(tmp_path, 'cloud = "https://cloud.local"\nstate = "models"\nperiod = 500\nfloor = 0\n')

    config = read_config(path, {})

    assert config == EdgeConfig(cloud="https://cloud.local", state=tmp_path / "models", period=500, floor=0)
    assert (config.host, config.port, config.audit_every) == ("127.0.0.1", 8765, 10)


def test_options_go_before_the_file(tmp_path: Path):
    path = written(tmp_path, 'cloud = "https://cloud.local"\nstate = "models"\nport = 1\n')

    config = read_config(path, {"state": "elsewhere", "port": 2, "host": None})

    assert (config.state, config.port, config.host) == (Path("elsewhere"), 2, "127.0.0.1")


def test_options_alone_will_do():
    config = read_config(None, {"cloud": "http://c:1", "state": "s"})

    assert config == EdgeConfig(cloud="http://c:1", state=Path("s"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("perod = 5", r"unknown key 'perod': the known ones are cloud, state, host"),
        ("period = 0", r"period is 0: expected a whole number from 1"),
        ("period = 2.5", r"period is 2\.5: expected a whole number"),
        ("period = true", r"period is True: expected a whole number"),
        ("port = 65536", r"port is 65536: .* to 65535"),
        ("floor = 1.0", r"floor is 1\.0: expected a number from 0 to under 1"),
        ("change = nan", r"change is nan: expected a number"),
        ("change = '0.2'", r"change is '0\.2': expected a number"),
        ("retry_first_s = 0", r"retry_first_s is 0: expected a number from 0\.001"),
        ("device = ''", r"device is '': expected a text"),
        ("host = 3", r"host is 3: expected a text"),
        ("port 5", r"is not valid TOML"),
    ],
)
def test_a_wrong_line_is_answered_with_file_key_and_remedy(tmp_path: Path, line: str, message: str):
    path = written(tmp_path, f'cloud = "https://cloud.local"\nstate = "models"\n{line}\n')

    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path, {})

    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["cloud.local", "ftp://cloud.local", "http://", "http://[::1", "http://c:99999"])
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(ConfigError, match=r"^cloud is .*: expected an address such as https"):
        read_config(None, {"cloud": address, "state": "s"})


def test_what_is_required_is_asked_for(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"edge.toml: state is not set: .* --state"):
        read_config(written(tmp_path, 'cloud = "http://c"'), {})
    with pytest.raises(ConfigError, match=r"^cloud is not set"):
        read_config(None, {"state": "s"})


def test_the_longest_wait_is_not_shorter_than_the_first():
    with pytest.raises(ConfigError, match=r"retry_max_s is 5: expected retry_first_s, 10, or more"):
        EdgeConfig(cloud="http://c", state=Path("s"), retry_first_s=10, retry_max_s=5)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read \(No such file"):
        read_config(tmp_path / "none.toml", {})
