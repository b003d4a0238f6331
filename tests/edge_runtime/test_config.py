from __future__ import annotations

from datetime import time
from pathlib import Path

import pytest

from edge_runtime.config import (
    ApiConfig,
    CloudConfig,
    DownloadConfig,
    EdgeConfig,
    MonitorConfig,
    MqttConfig,
    WatchConfig,
)
from edge_runtime.config_file import read_settings
from edge_runtime.errors import ConfigError

KEY = "ed25519:" + "A" * 43 + "="
OTHER_KEY = "ed25519:" + "B" * 42 + "A="
KEYS_EXPECTED = 'expected a list of one or more keys such as ["ed25519:..."], as capnn keys show prints them'
HOURS_EXPECTED = 'expected two times of day such as "01:00-05:00", or "22:30-06:00" over midnight'
MINIMAL = f"""state = "models"

[cloud]
url = "https://cloud.local"
keys = ["{KEY}"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "edge.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> list[str]:
    """Return what is wrong with a file, without the folder's name."""
    found = read_settings(write(folder, text), {}).problems
    return [str(problem).replace(f"{folder}/", "") for problem in found]


def test_a_file_is_read_and_the_rest_has_defaults(tmp_path: Path):
    config = read_settings(write(tmp_path, MINIMAL), {}).config()

    assert config == EdgeConfig(state=tmp_path / "models", cloud=CloudConfig("https://cloud.local", (KEY,)))
    assert config.monitor == MonitorConfig()
    assert config.watch is None
    assert config.mqtt is None


def test_every_table_is_read_and_names_of_files_are_relative_to_the_file(tmp_path: Path):
    text = f"""
        state = "/var/lib/capnn"
        device = "kitchen"
        threads = 2
        [cloud]
        url = "http://127.0.0.1:80"
        keys = [  # two of them
            "{KEY}",
            "{OTHER_KEY}",
        ]
        token_file = "token"
        [api]
        socket = "/run/capnn/edge.sock"
        [monitor]
        period = 500
        upload = "never"
        [download]
        bytes_per_s = 100_000
        hours = "22:30-06:00"
        [probation]
        images = 50
        [watch]
        folder = "pictures"
        after = "delete"
        [mqtt]
        host = "broker"
        tls = true
        ca_file = "ca.pem"
    """

    config = read_settings(write(tmp_path, text), {}).config()

    assert (config.state, config.device, config.threads) == (Path("/var/lib/capnn"), "kitchen", 2)
    assert config.cloud.keys == (KEY, OTHER_KEY)
    assert config.cloud.token_file == tmp_path / "token"
    assert config.api == ApiConfig(socket=Path("/run/capnn/edge.sock"))
    assert config.monitor == MonitorConfig(period=500, upload="never")
    assert config.download == DownloadConfig(bytes_per_s=100_000, hours="22:30-06:00")
    assert config.probation.images == 50
    assert config.watch == WatchConfig(tmp_path / "pictures", after="delete")
    assert config.mqtt == MqttConfig("broker", tls=True, ca_file=tmp_path / "ca.pem")


def test_options_go_before_the_file_and_names_in_them_are_relative_to_here(tmp_path: Path):
    path = write(tmp_path, MINIMAL + '[api]\nsocket = "edge.sock"\n')
    options = {"cloud": "http://127.0.0.1", "key": [OTHER_KEY], "state": "here", "host": "::1", "port": 0}

    config = read_settings(path, options).config()

    assert config.cloud == CloudConfig("http://127.0.0.1", (OTHER_KEY,))
    assert config.state == Path("here")
    assert config.api == ApiConfig(host="::1", port=0)


def test_options_alone_will_do():
    options = {"cloud": "http://127.0.0.1", "key": [KEY], "state": "s", "host": None, "port": None}

    assert read_settings(None, options).config() == EdgeConfig(Path("s"), CloudConfig("http://127.0.0.1", (KEY,)))


def test_every_wrong_setting_is_named_with_its_line(tmp_path: Path):
    text = f"""state = 3
prot = 8000
period = 200

[cloud]
url = "cloud.local"
keys = ["{KEY}", "ed25519:short"]
retry_first_s = 10
retry_max_s = 5

[api]
port = 70000
host = ""

[downloads]

[download]
hours = "1-5"
bytes_per_s = 0

[monitor]
floor = true
upload = "always"
audit_evry = 5

[mqtt]
port = 1883
"""

    assert problems(tmp_path, text) == [
        "edge.toml:1: state is 3: expected the name of a folder in quotes",
        "edge.toml:2: prot is not known: did you mean port below [api]?",
        "edge.toml:3: period is not known: it belongs below [monitor]",
        "edge.toml:6: cloud.url is 'cloud.local': expected an address such as https://capnn.example.org",
        f"edge.toml:7: cloud.keys is ['{KEY}', 'ed25519:short']: {KEYS_EXPECTED}",
        "edge.toml:12: api.port is 70000: expected a whole number from 0 to 65535",
        "edge.toml:13: api.host is '': expected a text in quotes",
        "edge.toml:15: downloads is not known: did you mean download?",
        f"edge.toml:18: download.hours is '1-5': {HOURS_EXPECTED}",
        "edge.toml:19: download.bytes_per_s is 0: expected a whole number from 1 to 1099511627776",
        "edge.toml:22: monitor.floor is True: expected a number from 0.0001 to 0.9999",
        'edge.toml:23: monitor.upload is \'always\': expected "usage" or "never"',
        "edge.toml:24: monitor.audit_evry is not known: did you mean audit_every?",
        "edge.toml:26: mqtt.host is not set: add it below [mqtt]",
    ]


def test_what_is_missing_is_named_with_its_table(tmp_path: Path):
    assert problems(tmp_path, "threads = 1\n\n[cloud]\n") == [
        "edge.toml:1: state is not set: add it above all tables, or give --state",
        "edge.toml:3: cloud.url is not set: add it below [cloud], or give --cloud",
        "edge.toml:3: cloud.keys is not set: add it below [cloud], or give --key",
    ]


def test_values_must_fit_together(tmp_path: Path):
    text = MINIMAL + (
        'retry_first_s = 10\nretry_max_s = 5\n[api]\nsocket = "s"\nport = 1\n'
        '[mqtt]\nhost = "h"\npassword_file = "p"\nca_file = "c"\n[download]\nbytes_per_s = 100\n'
    )

    assert problems(tmp_path, text) == [
        "edge.toml:7: cloud.retry_max_s is 5: expected retry_first_s, 10, or more",
        "edge.toml:16: download.bytes_per_s is 100: expected bytes_per_s_min, 200, or more",
        "edge.toml:9: api.socket is given beside host or port: remove the one or the other",
        "edge.toml:13: mqtt.password_file is given without user: name the user too",
        "edge.toml:14: mqtt.ca_file is given without tls: add tls = true",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('cloud = "http://cloud.local"\nstate = "s"\n', "edge.toml:1: cloud is 'http://cloud.local': expected a table"),
        ('state = "s"\n[cloud\n', "edge.toml:2: is not valid TOML: Expected ']'"),
        ('state = "s"\nstate = "t"\n', "edge.toml:2: is not valid TOML: Cannot overwrite a value"),
        ('state = "s', "edge.toml:1: is not valid TOML"),
    ],
)
def test_a_file_of_another_shape_is_named(tmp_path: Path, text: str, problem: str):
    assert problems(tmp_path, text)[0].startswith(problem)


def test_settings_in_other_ways_of_toml_are_read_too(tmp_path: Path):
    inline = f'state = "s"\ncloud = {{ url = "nonsense", keys = ["{KEY}"] }}\n'
    dotted = f'state = "s"\ncloud.url = "nonsense"\ncloud."keys" = ["{KEY}"]\n'

    assert problems(tmp_path, inline)[0].startswith("edge.toml:2: cloud.url is 'nonsense'")
    assert problems(tmp_path, dotted)[0].startswith("edge.toml:2: cloud.url is 'nonsense'")


def test_a_missing_file_is_named(tmp_path: Path):
    (problem,) = read_settings(tmp_path / "none.toml", {}).problems

    assert (
        str(problem)
        == f"{tmp_path}/none.toml: cannot be read (No such file or directory): check the name after --config"
    )


def test_a_file_in_another_encoding_is_named(tmp_path: Path):
    path = tmp_path / "edge.toml"
    path.write_bytes('device = "Küche"'.encode("latin-1"))

    (problem,) = read_settings(path, {}).problems

    assert "is not UTF-8 text" in str(problem)


def test_an_option_is_named_where_it_is_wrong():
    settings = read_settings(None, {"cloud": "nonsense", "state": "s", "key": [KEY], "port": 70000})

    assert [str(problem) for problem in settings.problems] == [
        "--cloud: cloud.url is 'nonsense': expected an address such as https://capnn.example.org",
        "--port: api.port is 70000: expected a whole number from 0 to 65535",
    ]
    with pytest.raises(ConfigError, match=r"^--cloud: .* \(and 1 more: capnn-edge check names them all\)$"):
        settings.config()


def test_a_wrong_value_is_an_error_where_settings_are_made_in_a_program():
    with pytest.raises(ConfigError, match=r"^url is 'c': expected an address"):
        CloudConfig("c", (KEY,))
    with pytest.raises(ConfigError, match=r"^keys is \(\): expected a list of one or more keys"):
        CloudConfig("http://c", ())
    with pytest.raises(ConfigError, match=r"^retry_max_s is 5: expected retry_first_s, 10, or more"):
        CloudConfig("http://c", (KEY,), retry_first_s=10, retry_max_s=5)
    with pytest.raises(ConfigError, match=r"^port is True: expected a whole number"):
        ApiConfig(port=True)


@pytest.mark.parametrize(
    ("hours", "window"),
    [("01:00-05:30", (time(1), time(5, 30))), ("22:30-06:00", (time(22, 30), time(6)))],
)
def test_hours_are_a_stretch_of_the_day(hours: str, window: tuple[time, time]):
    assert DownloadConfig(hours=hours).window() == window


@pytest.mark.parametrize(
    "hours", ["24:00-05:00", "01:00", "1:00-5:00", "01:00-01:00", "01:60-02:00", "a-b", " 01:00-05:00"]
)
def test_other_hours_are_refused(hours: str):
    with pytest.raises(ConfigError, match=r"expected two times of day"):
        DownloadConfig(hours=hours)
