"""`capnn keys`, and how `capnn serve` asks for them."""

from __future__ import annotations

import json

import pytest

from cloud_pruner.cli import main
from edge_runtime.signing import TrustedKeys

ACTIONS = ["generate", "show", "rotate", "revoke"]


def run(capsys, *arguments):
    assert main(["keys", *map(str, arguments)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def failure(capsys, *arguments):
    """Run the command, which must fail, and return its one line on stderr."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    return line


@pytest.fixture
def folder(tmp_path, capsys):
    run(capsys, "generate", tmp_path / "keys")
    return tmp_path / "keys"


def test_the_key_is_shown_as_a_device_wants_it(tmp_path, capsys):
    generated = run(capsys, "generate", tmp_path / "keys")
    assert run(capsys, "show", tmp_path / "keys") == generated
    public, key, signs = generated.split()
    assert list(TrustedKeys.of([public]).keys) == [key]
    assert signs == "signs"


def test_a_new_key_signs_and_the_former_can_be_revoked(folder, capsys):
    former = run(capsys, "show", folder).split()
    new, kept = (line.split() for line in run(capsys, "rotate", folder).splitlines())
    assert kept == former[:2]
    assert new[2] == "signs"
    assert run(capsys, "revoke", folder, former[1]).split() == new


def test_programs_read_json(folder, capsys):
    shown = json.loads(run(capsys, "show", folder, "--json"))
    rotated = json.loads(run(capsys, "rotate", folder, "--json"))
    (first,) = shown["keys"]
    assert first["signs"]
    assert rotated["keys"][1] == {**first, "signs": False}
    assert rotated["serial"] > shown["serial"]


class TestBadInput:
    def test_keys_are_not_overwritten(self, folder, capsys):
        assert "holds keys already" in failure(capsys, "keys", "generate", folder)

    @pytest.mark.parametrize("command", [["keys", "show"], ["keys", "rotate"], ["serve", "profile", "--keys"]])
    def test_a_folder_without_keys(self, command, tmp_path, capsys):
        assert "capnn keys generate" in failure(capsys, *command, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_the_last_key_stays(self, folder, capsys):
        key = run(capsys, "show", folder).split()[1]
        assert "is the only key" in failure(capsys, "keys", "revoke", folder, key)

    def test_a_folder_that_cannot_be_made(self, tmp_path, capsys):
        (tmp_path / "file").touch()
        assert str(tmp_path / "file") in failure(capsys, "keys", "generate", tmp_path / "file" / "keys")

    def test_a_service_without_keys_says_how_to_make_some(self, capsys):
        assert "capnn keys generate keys/' and add --keys keys/" in failure(capsys, "serve", "profile/")


@pytest.mark.parametrize("command", [[], *([action] for action in ACTIONS)])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main(["keys", *command, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  {' '.join(['capnn keys', *command])}" in capsys.readouterr().out
