"""`service.toml`: what it may say, and how it is told what is wrong in it."""

from __future__ import annotations

import pytest

from cloud_pruner.service.settings import ServerSettings, StateSettings
from cloud_pruner.service.settings_file import read_settings
from edge_runtime.errors import ConfigError

WHOLE = """
[state]
database = "sqlite:///state.sqlite"
files = "files"

[keys]
folder = "/etc/capnn/keys"

[models.birds]
profiles = ["profiles/birds-1", "/srv/birds-2"]

[server]
host = "0.0.0.0"

[limits]
device_rate = "10/second"
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "service.toml"


def test_names_are_relative_to_the_file(path, tmp_path):
    path.write_text(WHOLE)
    settings = read_settings(path)
    assert settings.state.database == f"sqlite:///{tmp_path}/state.sqlite"
    assert settings.state.files == str(tmp_path / "files")
    assert str(settings.keys.folder) == "/etc/capnn/keys"
    assert [str(folder) for folder in settings.models["birds"]] == [f"{tmp_path}/profiles/birds-1", "/srv/birds-2"]


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("sqlite:////var/lib/capnn/state.sqlite", "sqlite:////var/lib/capnn/state.sqlite"),
        ("postgresql+psycopg://capnn@db/capnn", "postgresql+psycopg://capnn@db/capnn"),
    ],
)
def test_other_databases_stay_what_they_are(path, url, read):
    path.write_text(WHOLE.replace("sqlite:///state.sqlite", url).replace('files = "files"', 'files = "s3://bucket/x"'))
    state = read_settings(path).state
    assert (state.database, state.files) == (read, "s3://bucket/x")


def test_tokens_are_asked_for_where_others_can_reach_the_service(path):
    path.write_text(WHOLE)
    assert read_settings(path).server.tokens_required
    assert not ServerSettings("127.0.0.1").tokens_required
    assert not ServerSettings("::1").tokens_required
    assert ServerSettings("127.0.0.1", tokens=True).tokens_required
    assert not ServerSettings("0.0.0.0", tokens=False).tokens_required


def test_the_state_of_one_folder(tmp_path):
    state = StateSettings.in_folder(tmp_path)
    assert state.database == f"sqlite:///{tmp_path}/state.sqlite"
    assert (state.files, state.metrics) == (str(tmp_path / "files"), tmp_path / "metrics")


@pytest.mark.parametrize(
    ("was", "becomes", "line", "said"),
    [
        ('host = "0.0.0.0"', "port = 99999", 13, "server.port is 99999: expected a whole number from 0 to 65535"),
        ('host = "0.0.0.0"', "workes = 2", 13, "server.workes is not known: did you mean workers?"),
        ('host = "0.0.0.0"', 'tls_cert = "c"', 13, "server.tls_cert is given without tls_key: TLS needs both"),
        ('"10/second"', '"often"', 16, "limits.device_rate is 'often': expected a rate such as \"300/minute\""),
        ('"10/second"', "10", 16, "limits.device_rate is 10: expected a rate"),
        ('files = "files"', "", 2, "state.files is not set: add it below [state]"),
        ("[limits]", "[limit]", 15, "limit is not known: did you mean limits?"),
        (
            'profiles = ["profiles/birds-1", "/srv/birds-2"]',
            "profiles = []",
            10,
            "models.birds.profiles is []: expected",
        ),
        ("[models.birds]", '[models."é"]', 9, "models.é cannot be called so: 'é' is no name for a model"),
        ("[keys]", "[keys", 6, "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(path, was, becomes, line, said):
    assert was in WHOLE
    path.write_text(WHOLE.replace(was, becomes))
    with pytest.raises(ConfigError) as error:
        read_settings(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert said in str(error.value)


def test_more_than_one_thing_is_wrong(path):
    path.write_text(WHOLE.replace('host = "0.0.0.0"', "port = 99999\nworkers = 0"))
    with pytest.raises(ConfigError, match=r"port.*\(and 1 more\)$"):
        read_settings(path)
