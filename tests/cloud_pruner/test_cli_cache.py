"""`capnn cache`, and how `capnn prune` and `capnn serve` open theirs."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from contextlib import closing

import pytest

from cache import SqliteStore, WrongStoreError, exact_key, plan_key
from cloud_pruner.cli import main
from cloud_pruner.cli.options import open_cache
from cloud_pruner.service.assembly import _cache
from cloud_pruner.service.settings import CacheSettings
from tests.cache.redis_server import RedisServer

SETTINGS = exact_key(model="5f2c")
PLAN = plan_key(SETTINGS, (2, 7), (0.5, 0.5))
ACTIONS = ["stats", "list", "clear", "verify"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "plans.sqlite"
    with SqliteStore(path) as store:
        store.put(PLAN, b"a plan", 2.5)
        store.put(plan_key(SETTINGS, (2, 7, 11), ()), b"another", 1.5)
        store.put("threshold/" + "ab" * 32, b"a layer", 0.25)
    return path


def run(capsys, *arguments, code=0):
    assert main(["cache", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def failure(capsys, *arguments):
    """Run the command, which must fail, and return its one line on stderr."""
    assert main([*map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    return line


def damage(path, key):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE entries SET entry = substr(entry, 1, 50) WHERE key = ?", (key,))


def test_stats(path, capsys):
    fields = json.loads(run(capsys, "stats", "--store", path, "--json"))
    assert fields["oldest"] <= fields["newest"] <= time.time()
    sizes = len(PLAN) + len(b"a plan"), len(PLAN) + len("-11") + len(b"another"), len("threshold/") + 64 + 7
    assert fields | {"oldest": 0, "newest": 0} == {
        "store": "sqlite",
        "entries": 3,
        "plans": 2,
        "thresholds": 1,
        "others": 0,
        "settings": 1,
        "class_sets": 2,
        "bytes": sum(sizes),
        "seconds": 4.25,
        "oldest": 0,
        "newest": 0,
        "file_bytes": path.stat().st_size,
    }
    table = run(capsys, "stats", "--store", path)
    assert f"{sum(sizes):,}" in table
    assert "4.2 s" in table


def test_stats_of_an_empty_cache(tmp_path, capsys):
    SqliteStore(tmp_path / "plans.sqlite").close()
    assert json.loads(run(capsys, "stats", "--store", tmp_path / "plans.sqlite", "--json"))["oldest"] is None
    assert "entries" in run(capsys, "stats", "--store", tmp_path / "plans.sqlite")


def test_list_names_settings_classes_and_what_each_saves(path, capsys):
    with SqliteStore(path) as store:
        store.get(PLAN)
    entries = json.loads(run(capsys, "list", "--store", path, "--json"))["entries"]
    assert entries[0]["key"] == PLAN  # the last used
    assert entries[0]["settings"] == SETTINGS
    assert entries[0]["classes"] == [2, 7]
    assert (entries[0]["seconds"], entries[0]["bytes"]) == (2.5, len(PLAN) + 6)
    assert entries[0]["created"] <= entries[0]["last_used"]
    assert {entry["classes"] and tuple(entry["classes"]) for entry in entries} == {(2, 7), (2, 7, 11), None}
    lines = run(capsys, "list", "--store", path).splitlines()
    (line,) = [line for line in lines if "2 7 11" in line]
    assert SETTINGS[:12] in line
    assert "1.50" in line
    assert any("threshold/abababababab" in line for line in lines)


def test_clear_forgets_everything_when_told_yes(path, capsys):
    assert json.loads(run(capsys, "clear", "--store", path, "--yes", "--json")) == {"store": "sqlite", "cleared": 3}
    assert run(capsys, "clear", "--store", path, "--yes") == "0 entries forgotten\n"
    with SqliteStore(path) as store:
        assert len(store) == 0


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("yes\n", 0), ("n\n", 3), ("\n", 3), ("", 3)])
def test_clear_asks(path, capsys, monkeypatch, answer, left):
    class Terminal:
        isatty = staticmethod(lambda: True)
        readline = staticmethod(lambda: answer)

    monkeypatch.setattr(sys, "stdin", Terminal)
    assert main(["cache", "clear", "--store", str(path)]) == (1 if left else 0)
    assert "Forget 3 entries? [y/N]" in capsys.readouterr().err
    with SqliteStore(path) as store:
        assert len(store) == left


def test_clear_without_anybody_to_ask_changes_nothing(path, capsys):
    assert "give --yes" in failure(capsys, "cache", "clear", "--store", path)
    with SqliteStore(path) as store:
        assert len(store) == 3


def test_verify(path, capsys):
    assert json.loads(run(capsys, "verify", "--store", path, "--json")) == {
        "store": "sqlite", "entries": 3, "corrupt": [], "damage": [], "sound": True
    }  # fmt: skip
    run(capsys, "verify", "--store", path)
    damage(path, PLAN)
    assert json.loads(run(capsys, "verify", "--store", path, "--json", code=1))["corrupt"] == [PLAN]
    assert f"corrupt, and dropped when it is next asked for: {PLAN}" in run(capsys, "verify", "--store", path, code=1)
    with SqliteStore(path) as store:
        assert store.get(PLAN) is None
    assert json.loads(run(capsys, "verify", "--store", path, "--json"))["sound"]


def test_verify_of_a_file_that_is_damaged_itself_leaves_it(path, capsys):
    content = path.read_bytes()[:5000]
    path.write_bytes(content)
    assert "plans.sqlite: database disk image is malformed" in failure(capsys, "cache", "verify", "--store", path)
    assert path.read_bytes() == content


def test_on_a_server(tmp_path, capsys):
    with RedisServer(tmp_path) as server:
        from cache import RedisStore

        with RedisStore(server.url, timeout=5) as store:
            store.put(PLAN, b"a plan", 2.5)
        where = ["--redis", server.url]
        assert json.loads(run(capsys, "stats", *where, "--json"))["seconds"] == 2.5
        (entry,) = json.loads(run(capsys, "list", *where, "--json"))["entries"]
        assert (entry["key"], entry["classes"]) == (PLAN, [2, 7])
        assert "sound" in run(capsys, "verify", *where, "--json")
        run(capsys, "clear", *where, "--yes")
        assert json.loads(run(capsys, "stats", *where, "--json"))["entries"] == 0
        server.kill()
        assert f"127.0.0.1:{server.port}" in failure(capsys, "cache", "stats", *where)


@pytest.mark.parametrize("action", ACTIONS)
class TestBadInput:
    def test_no_such_file_is_named_and_not_made(self, action, tmp_path, capsys):
        arguments = ["cache", action, "--store", tmp_path / "plans.sqlite"]
        assert "plans.sqlite: no such file: give the path of a cache" in failure(capsys, *arguments)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_of_another_kind(self, action, tmp_path, capsys):
        (tmp_path / "notes.txt").write_bytes(b"notes" * 1000)
        line = failure(capsys, "cache", action, "--store", tmp_path / "notes.txt")
        assert "notes.txt: file is not a database, so no plan cache: give another path" in line

    def test_an_address_that_is_none(self, action, capsys):
        pytest.importorskip("redis", reason="the package redis is not installed (extra 'redis')")
        assert "http://host" in failure(capsys, "cache", action, "--redis", "http://host")

    def test_no_store_at_all_is_wrong_usage(self, action, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["cache", action])
        assert ended.value.code == 2
        assert "one of the arguments --store --redis is required" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *([action] for action in ACTIONS)])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main(["cache", *command, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  {' '.join(['capnn cache', *command])}" in capsys.readouterr().out


def test_prune_shares_a_server_and_chooses_what_leaves_the_memory(digits_profile, tmp_path, capsys):
    with RedisServer(tmp_path) as server:
        prune = ["prune", str(digits_profile.folder), "--classes", "two", "three", "--guarantee", "empirical", "--json"]
        tiers = []
        for policy in ("lru", "cost"):
            assert main([*prune, "--redis", server.url, "--cache-policy", policy]) == 0
            tiers.append(json.loads(capsys.readouterr().out)["cache_tier"])
        assert tiers == ["search", "exact"]
        server.kill()
        assert main([*prune, "--redis", server.url]) == 0
        assert json.loads(capsys.readouterr().out)["cache_tier"] == "search"


def test_a_service_starts_beside_a_file_that_is_of_no_use_and_leaves_it(tmp_path, caplog):
    wrong = tmp_path / "plans.sqlite"
    wrong.write_bytes(b"no database at all" * 100)
    arguments = argparse.Namespace(cache=wrong, redis=None, cache_policy="lru")
    with pytest.raises(WrongStoreError):
        open_cache(arguments)
    with _cache(CacheSettings(wrong, None, "lru")) as plans:
        plans.store(PLAN, b"a plan", seconds=1.0)
        assert plans.lookup(PLAN) is not None
        memory, file = plans.statistics().stores
        assert (memory.entries, file.entries) == (1, None)
        assert file.faults > 0
    assert len(caplog.records) == 1
    assert "plans.sqlite: file is not a database" in caplog.text
    assert wrong.read_bytes() == b"no database at all" * 100
