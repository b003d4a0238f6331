"""What the guides tell people to type exists, and the certificate that they explain is a good one."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

import cloud_pruner.cli
import cloud_pruner.cli.commands
import edge_runtime.cli
import hwmodel.cli
from edge_runtime.certificate import Certificate

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("guide", "methods", "certificate", "limits")
COMMANDS = {"capnn": cloud_pruner.cli, "capnn-edge": edge_runtime.cli, "capnn-hw": hwmodel.cli}


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)


def command_lines(page: str) -> list[str]:
    """All that a page has people type, but for what is not ours; long lines are put together."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.startswith("capnn")]


@pytest.fixture
def parsers(monkeypatch):
    """Make the commands parse what they are given, and stop there; return the parsers that were made."""
    made: list[argparse.ArgumentParser] = []

    def parse(parser, action, errors, argv=None):
        made.append(parser)
        parser.parse_args(argv)
        return 0

    for module in (cloud_pruner.cli.commands, edge_runtime.cli, hwmodel.cli):
        monkeypatch.setattr(module, "run_command", parse)
    return made


LINES = [(page, line) for page in PAGES for line in command_lines(page)]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}-{number}" for number, (page, _) in enumerate(LINES)])
def test_a_command_of_a_guide_is_understood(parsers, page, line):
    name, *words = shlex.split(line)
    assert COMMANDS[name].main(words) == 0, page


def test_a_guide_has_commands_and_a_wrong_one_is_seen(parsers):
    assert len(command_lines("guide")) >= 12
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        COMMANDS["capnn"].main(["convert", "model.keras", "--out", "base.tflite"])


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for other in action.choices.values():
                found |= options_of(other)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_an_option_that_is_spoken_of_exists(parsers, page):
    for command in COMMANDS.values():
        with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            command.main([])  # wrong usage, with all parsers made
    known = set().union(*(options_of(parser) for parser in parsers))
    spoken_of = set(re.findall(r"`(?:[\w-]+ )*(--[a-z][a-z-]+)", (DOCS / f"{page}.md").read_text()))
    assert spoken_of <= known


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_somewhere(page):
    text = (DOCS / f"{page}.md").read_text()
    for target in re.findall(r"\]\(([\w./#-]+)\)", text):
        file, _, place = target.partition("#")
        path = DOCS / file if file else DOCS / f"{page}.md"
        assert path.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert place in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, target


def test_the_example_of_the_guide_is_a_program():
    (program,) = blocks("guide", "python")
    compile(program, "example.py", "exec")


def test_the_explained_certificate_shows_what_it_claims():
    (text,) = blocks("certificate", "json")
    certificate = Certificate.from_fields(json.loads(text))
    certificate.check(certificate.model, ["three", "seven"])


def test_the_certificate_can_be_checked_by_hand(tmp_path, monkeypatch):
    (text,) = blocks("certificate", "json")
    with_capnn, without = blocks("certificate", "python")
    monkeypatch.chdir(tmp_path)
    Path("certificate.json").write_text(text)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(with_capnn, {})
        exec(without, {})
    shown, bound = printed.getvalue().splitlines()
    stated = {name: fields["p_value"] for name, fields in json.loads(text)["classes"].items()}
    assert json.loads(shown.replace("'", '"')) == pytest.approx(stated)
    assert f"prints {float(bound):.4f}:" in (DOCS / "certificate.md").read_text()
