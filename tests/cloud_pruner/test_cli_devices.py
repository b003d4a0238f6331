"""`capnn devices`, `capnn operators` and `capnn rollout`: who may ask, who runs the service, and what is served."""

from __future__ import annotations

import json

import pytest

from cloud_pruner.cli import main
from cloud_pruner.state import Database, Devices, Operators, Rollouts

OLD, NEW = "01d" + "0" * 61, "4e3" + "0" * 61
ACTIONS = [
    *(("devices", action) for action in ("register", "list", "revoke", "token")),
    *(("operators", action) for action in ("create", "list", "revoke")),
    *(("rollout", action) for action in ("show", "start", "widen", "finish", "take-back")),
]


@pytest.fixture
def run(capsys, tmp_path):
    """What runs a command on the state of this test, which must succeed, and returns what it prints."""

    def run_one(*arguments):
        assert main([*arguments, "--state", str(tmp_path / "state")]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run_one


@pytest.fixture
def failure(capsys, tmp_path):
    """The same for one that must fail: returns its one line on stderr."""

    def run_one(*arguments, where=None):
        assert main([*arguments, *(where or ["--state", str(tmp_path / "state")])]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.strip().splitlines()
        return line

    return run_one


@pytest.fixture
def database(tmp_path, run):
    """The same state, as a running service has it open."""
    run("operators", "create", "ada")
    with Database.open(f"sqlite:///{tmp_path / 'state' / 'state.sqlite'}") as database:
        yield database


class TestDevices:
    def test_a_token_is_all_that_is_printed(self, run, database):
        token = run("devices", "register", "porch", "--model", "birds")
        assert Devices(database).by_token(token.removesuffix("\n")).model == "birds"
        renewed = json.loads(run("devices", "token", "porch", "--json"))
        assert Devices(database).by_token(renewed["token"]).name == renewed["name"] == "porch"
        assert Devices(database).by_token(token.strip()) is None

    def test_are_listed(self, run):
        for name in ("porch", "yard"):
            run("devices", "register", name)
        run("devices", "revoke", "yard")
        table = run("devices", "list")
        assert "2 devices" in table
        assert [line.split()[1] for line in table.splitlines() if line.startswith("│")] == ["porch", "yard"]
        porch, yard = json.loads(run("devices", "list", "--json"))["devices"]
        assert (porch["name"], porch["revoked"], porch["last_seen"]) == ("porch", False, None)
        assert yard["revoked"]
        (found,) = json.loads(run("devices", "list", "--search", "OR", "--json"))["devices"]
        assert found == porch

    def test_a_list_longer_than_a_page(self, run, database, monkeypatch):
        monkeypatch.setattr("cloud_pruner.cli.devices._PAGE", 2)
        for number in range(5):
            Devices(database).register(f"device-{number}")
        listed = json.loads(run("devices", "list", "--json"))["devices"]
        assert [device["name"] for device in listed] == [f"device-{number}" for number in range(5)]

    def test_that_are_revoked(self, run, database):
        token = run("devices", "register", "porch").strip()
        assert "device porch is revoked" in run("devices", "revoke", "porch")
        assert Devices(database).by_token(token) is None

    def test_what_cannot_be(self, run, failure):
        run("devices", "register", "porch")
        assert "there is a device 'porch' already" in failure("devices", "register", "porch")
        assert "'a/b' is no name for a device" in failure("devices", "register", "a/b")
        assert "there is no device 'yard'" in failure("devices", "revoke", "yard")


class TestOperators:
    def test_come_and_go(self, run, failure, database):
        token = run("operators", "create", "grace").strip()
        assert Operators(database).by_token(token) == "grace"
        assert [one["name"] for one in json.loads(run("operators", "list", "--json"))["operators"]] == ["ada", "grace"]
        assert "2 operators" in run("operators", "list")
        assert "operator grace is revoked" in run("operators", "revoke", "grace")
        assert list(Operators(database).all()) == ["ada"]
        assert "there is no operator 'grace'" in failure("operators", "revoke", "grace")
        assert "there is an operator 'ada' already" in failure("operators", "create", "ada")


class TestRollouts:
    @pytest.fixture(autouse=True)
    def served(self, database):
        Rollouts(database).begin("birds", OLD, NEW)

    def test_from_start_to_finish(self, run, database):
        assert "10.0%" in run("rollout", "start", "birds", "4e3", "--share", "0.1")
        widened = json.loads(run("rollout", "widen", "birds", "--share", "0.5", "--json"))
        assert widened == {"model": "birds", "current": OLD, "candidate": NEW, "share": 0.5}
        (shown,) = json.loads(run("rollout", "show", "--json"))["rollouts"]
        assert shown == {**widened, "profiles": [OLD, NEW]}
        assert NEW[:12] in run("rollout", "show", "birds")
        assert json.loads(run("rollout", "finish", "birds", "--json"))["current"] == NEW
        assert Rollouts(database).get("birds").current == NEW

    def test_taken_back(self, run, database):
        run("rollout", "start", "birds", NEW, "--share", "1")
        run("rollout", "take-back", "birds")
        assert Rollouts(database).get("birds").candidate is None

    def test_what_cannot_be(self, failure):
        assert "'beef' is no profile of model birds" in failure("rollout", "start", "birds", "beef", "--share", "0.1")
        assert "share 7 is none" in failure("rollout", "start", "birds", NEW, "--share", "7")
        assert "there is no model 'cats'" in failure("rollout", "show", "cats")
        assert "has no profile on trial" in failure("rollout", "finish", "birds")

    def test_a_folder_without_a_profile(self, failure, tmp_path):
        assert "no profile there" in failure("rollout", "start", "birds", str(tmp_path), "--share", "0.1")


class TestWhere:
    def test_a_folder_without_state_is_not_made_into_one(self, failure, tmp_path):
        (tmp_path / "state").mkdir()
        for command in (["devices", "list"], ["devices", "revoke", "porch"], ["rollout", "show"]):
            assert "holds no state of a service" in failure(*command)
        assert list((tmp_path / "state").iterdir()) == []

    def test_a_file_of_settings(self, run, capsys, tmp_path):
        run("devices", "register", "porch")
        settings = tmp_path / "service.toml"
        settings.write_text(
            f"""
            [state]
            database = "sqlite:///{tmp_path}/state/state.sqlite"
            files = "{tmp_path}/state/files"
            [keys]
            folder = "keys"
            [models.birds]
            profiles = ["birds-1"]
            """
        )
        assert main(["devices", "list", "--config", str(settings)]) == 0
        assert "porch" in capsys.readouterr().out

    def test_a_file_that_is_none(self, failure, tmp_path):
        assert "absent.toml" in failure("devices", "list", where=["--config", str(tmp_path / "absent.toml")])

    @pytest.mark.parametrize("given", [[], ["--state", "a", "--config", "b"]])
    def test_one_place_has_to_be_named(self, given):
        with pytest.raises(SystemExit) as ended:
            main(["devices", "list", *given])
        assert ended.value.code == 2


@pytest.mark.parametrize("command", [["devices"], ["operators"], ["rollout"], *map(list, ACTIONS)])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  {' '.join(['capnn', *command])}" in capsys.readouterr().out
