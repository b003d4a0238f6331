"""Real faults below a cache in use: a full disk, a read-only folder, a server that dies, hangs and returns."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cache import LayeredStore, MemoryStore, PlanCache, RedisStore, SqliteStore, StoreError, WrongStoreError
from tests.cache.redis_server import RedisServer
from tests.support.disks import small_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VALUE = b"v" * 20_000
TIMEOUT = 1.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TestDisk:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 1 MB."""
        with small_disk(tmp_path / "disk", "1m") as folder:
            yield folder

    def test_a_full_disk_is_gone_on_without_and_used_again_when_there_is_room(
        self, disk: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with PlanCache(LayeredStore(MemoryStore(10**8), SqliteStore(disk / "plans.sqlite"))) as plans:
            plans.store("first", VALUE, seconds=1.0)
            filler = disk / "filler"
            try:
                with filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
            except OSError:
                pass
            for number in range(100):
                plans.store(f"full {number}", VALUE, seconds=1.0)
                with plans.flight("plan"):  # its lock finds no room either
                    result = plans.lookup(f"full {number}")
                assert result is not None
                assert (result.value, result.store) == (VALUE, "memory")
            assert plans.statistics().stores[1].faults > 0
            assert 1 <= len(caplog.records) <= 2  # a full disk, and what SQLite says of its log when it is full too
            assert len({record.getMessage() for record in caplog.records}) == len(caplog.records)
            filler.unlink()
            plans.store("after", VALUE, seconds=1.0)
        with SqliteStore(disk / "plans.sqlite") as file_alone:
            assert file_alone.get("first") == VALUE
            assert file_alone.get("after") == VALUE
            assert file_alone.verify().sound

    def test_a_disk_that_is_full_from_the_start(self, disk: Path) -> None:
        filler = disk / "filler"
        filler.write_bytes(bytes(1 << 20))
        with PlanCache(LayeredStore(MemoryStore(10**8), SqliteStore(disk / "plans.sqlite"))) as plans:
            plans.store("plan", b"a plan", seconds=1.0)
            assert plans.lookup("plan") is not None
            assert plans.statistics().stores[1].faults > 0

    def test_a_read_only_folder_is_gone_on_without_and_used_when_it_can_be_written(
        self, disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("cache.sqlite._REST_SECONDS", 0.0)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with PlanCache(LayeredStore(MemoryStore(10**8), SqliteStore(disk / "plans.sqlite"))) as plans:
            for number in range(3):
                plans.store(str(number), b"a plan", seconds=1.0)
                with plans.flight("plan"):
                    result = plans.lookup(str(number))
                assert result is not None
                assert result.store == "memory"
            assert plans.statistics().stores[1].entries is None
            assert plans.statistics().stores[1].faults >= 3
            assert len(caplog.records) == 1
            assert "see that its folder may be written" in caplog.text
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            plans.store("after", b"a plan", seconds=1.0)
            assert plans.statistics().stores[1].entries == 1

    def test_a_cache_whose_file_can_no_longer_be_written(self, disk: Path) -> None:
        with SqliteStore(disk / "plans.sqlite") as file:
            file.put("plan", b"a plan")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with PlanCache(LayeredStore(MemoryStore(10**8), SqliteStore(disk / "plans.sqlite"))) as plans:
            plans.store("another", b"a plan", seconds=1.0)
            assert plans.lookup("another") is not None


class TestServer:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[RedisServer]:
        folder = tmp_path / "redis"
        folder.mkdir()
        with RedisServer(folder) as started:
            yield started

    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cache.redis._PROBE_SECONDS", 0.05)

    def test_one_that_dies_is_gone_on_without_and_used_again_when_it_returns(
        self, server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        layers = MemoryStore(10**6), SqliteStore(tmp_path / "plans.sqlite"), RedisStore(server.url, timeout=10)
        with caplog.at_level(logging.WARNING, "cache"), PlanCache(LayeredStore(*layers)) as plans:
            for round_ in range(3):
                plans.store(f"before {round_}", b"a plan", seconds=1.0)
                server.kill()
                for number in range(50):
                    key = f"{round_} {number}"
                    assert plans.lookup(key) is None
                    with plans.flight(key):
                        plans.store(key, b"a plan", seconds=1.0)
                    assert plans.lookup(key) is not None
                assert plans.supersets("0" * 64, (2, 7)) == []
                assert plans.statistics().stores[2].entries is None
                server.start()
                until(lambda: plans.statistics().stores[2].entries == 0)  # it keeps nothing on disk
                plans.store("after", b"a plan", seconds=1.0)
                assert layers[2].get("after") == b"a plan"
            assert plans.statistics().stores[2].faults >= 150
            assert plans.statistics().stores[1].faults == 0
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == len(set(messages)) <= 3  # refused, or closed in the midst of an answer
        assert f"127.0.0.1:{server.port}" in caplog.text

    def test_one_that_hangs_costs_a_request_the_time_limit_and_the_others_nothing(self, server: RedisServer) -> None:
        store = RedisStore(server.url, timeout=TIMEOUT)
        with PlanCache(LayeredStore(MemoryStore(10**6), store)) as plans:
            plans.store("before", b"a plan", seconds=1.0)
            server.freeze()
            began = time.monotonic()
            for number in range(100):
                assert plans.lookup(str(number)) is None
                with plans.flight(str(number)):
                    plans.store(str(number), b"a plan", seconds=1.0)
            # Were each to wait, it would be 400 time limits.
            assert time.monotonic() - began < 40 * TIMEOUT
            server.thaw()
            until(lambda: plans.statistics().stores[1].entries is not None)
            assert store.get("before") == b"a plan"

    def test_one_that_is_away_from_the_start_is_used_when_it_comes(self, server: RedisServer) -> None:
        server.kill()
        with PlanCache(LayeredStore(MemoryStore(10**6), RedisStore(server.url, timeout=10))) as plans:
            plans.store("before", b"a plan", seconds=1.0)
            assert plans.lookup("before") is not None
            server.start()
            until(lambda: plans.statistics().stores[1].entries is not None)
            plans.store("after", b"a plan", seconds=1.0)
            assert plans.statistics().stores[1].entries == 1


class TestServerWithLimits:
    def test_a_full_one_that_may_not_evict_still_answers(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with (
            RedisServer(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server,
            RedisStore(server.url, timeout=10) as redis,
        ):
            store = LayeredStore(MemoryStore(10**8), redis)
            for number in range(200):
                store.put(str(number), VALUE)
            held = redis.keys()
            assert 0 < len(held) < 200
            assert redis.get(held[0]) == VALUE
            assert redis.statistics()[0].faults == 200 - len(held)
            assert len(caplog.records) == 1
            assert "maxmemory" in caplog.text

    def test_one_that_evicts_keeps_what_is_used_and_forgets_the_keys_of_the_rest(self, tmp_path: Path) -> None:
        options = ("--maxmemory", "3mb", "--maxmemory-policy", "volatile-lru", "--maxmemory-samples", "64")
        with RedisServer(tmp_path, *options) as server, RedisStore(server.url, timeout=10) as redis:
            for number in range(200):
                redis.put(str(number), VALUE)
            held = {number for number in range(200) if redis.get(str(number)) is not None}
            assert 0 < len(held) < 200
            assert {int(key) for key in redis.keys()} == held  # noqa: SIM118 - no mapping
            assert redis.statistics()[0].faults == 0


class TestRedisStore:
    def test_a_damaged_entry_is_dropped_and_counted_never_returned(self, redis_url: str) -> None:
        import redis

        with RedisStore(redis_url, timeout=10) as store, redis.Redis.from_url(redis_url) as client:
            store.put("00", b"a plan", 2.5)
            store.put("01", b"another")
            client.setrange("capnn:2:entry:00", 50, b"?")
            found = store.verify()
            assert (found.entries, found.corrupt) == (2, ("00",))
            assert store.get("00") is None
            assert store.statistics()[0].corrupt == 1
            assert store.keys() == ["01"]
            assert store.verify().sound
            client.rename("capnn:2:entry:01", "capnn:2:entry:02")
            assert store.get("02") is None

    def test_another_schema_version_is_not_seen(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with RedisStore(redis_url, timeout=10) as now:
            now.put("00", b"a plan")
            monkeypatch.setattr("cache.redis.SCHEMA_VERSION", 3)
            with RedisStore(redis_url, timeout=10) as later:
                assert later.get("00") is None
                assert later.keys() == []
                later.put("00", b"other bytes")
                later.clear()
            assert now.get("00") == b"a plan"

    def test_clearing_leaves_what_is_not_the_caches(self, redis_url: str) -> None:
        import redis

        with RedisStore(redis_url, timeout=10) as store, redis.Redis.from_url(redis_url) as client:
            client.set("another program's", "value")
            for number in range(1_200):
                store.put(str(number), b"a plan")
            store.clear()
            assert len(store) == 0
            assert client.keys() == [b"another program's"]

    def test_describes_the_entries(self, redis_url: str) -> None:
        before = time.time()
        with RedisStore(redis_url, timeout=10) as store:
            store.put("00", b"a plan", 2.5)
            (entry,) = store.entries()
        assert (entry.key, entry.bytes, entry.cost) == ("00", 8, 2.5)
        assert entry.last_used is not None
        assert before <= entry.created <= time.time()
        assert before - 2 <= entry.last_used <= time.time()  # the server counts whole seconds

    def test_a_use_keeps_an_entry_for_another_month(self, redis_url: str) -> None:
        import redis

        with RedisStore(redis_url, timeout=10) as store, redis.Redis.from_url(redis_url) as client:
            for key in ("read", "touched", "left"):
                store.put(key, b"a plan")
                client.expire(f"capnn:2:entry:{key}", 100)
            store.get("read")
            store.touch("touched")
            store.put("another", b"a plan")
            kept = {key: client.ttl(f"capnn:2:entry:{key}") > 100 for key in ("read", "touched", "left")}
            assert kept == {"read": True, "touched": True, "left": False}

    @pytest.mark.parametrize("url", ["plans.sqlite", "http://host", "redis://host:port"])
    def test_a_url_that_is_none_is_refused(self, url: str) -> None:
        pytest.importorskip("redis", reason="the package redis is not installed (extra 'redis')")
        with pytest.raises(WrongStoreError, match=url):
            RedisStore(url)

    def test_without_the_package_the_remedy_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "redis", None)
        with pytest.raises(StoreError, match=r"redis is not installed: pip install 'capnn\[redis\]'"):
            RedisStore("redis://127.0.0.1")

    def test_no_message_shows_the_password(self) -> None:
        pytest.importorskip("redis", reason="the package redis is not installed (extra 'redis')")
        with RedisStore("redis://user:secret@127.0.0.1:1/0") as store, pytest.raises(StoreError) as failed:
            store.get("00")
        assert "redis://127.0.0.1:1/0" in str(failed.value)
        assert "secret" not in str(failed.value)

    def test_a_closed_store_says_so(self, redis_url: str) -> None:
        store = RedisStore(redis_url, timeout=10)
        store.close()
        with pytest.raises(StoreError, match="the store is closed: open it anew"):
            store.get("00")
        assert store.statistics()[0].entries is None
