"""Several real processes on one file, and one that is killed at its work."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

from cache import SqliteStore
from tests.cache.killing import kill_at_random

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

# A fresh interpreter each, as separate services would be.
processes = multiprocessing.get_context("spawn")
WRITES = 60


def value_of(key: str) -> bytes:
    return key.encode() * 500


def write_own_and_shared(path: Path, own: str, start: Barrier) -> None:
    """Put entries under keys of one's own, and between them under keys that the others put too."""
    start.wait(timeout=60)
    with SqliteStore(path) as store:
        for number in range(WRITES):
            for key in (f"{own}{number:02x}", f"5a{number:02x}"):
                store.put(key, value_of(key))
                assert store.get(key) == value_of(key)


def write_until_killed(path: Path, first: int, done: Connection) -> None:
    with SqliteStore(path) as store:
        number = first
        while True:
            key = f"{number:08x}"
            store.put(key, value_of(key))
            done.send(key)
            number += 1


def test_processes_that_make_and_write_one_file_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "plans.sqlite"
    start = processes.Barrier(3)
    writers = [processes.Process(target=write_own_and_shared, args=(path, own, start)) for own in ("a0", "b0", "c0")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    expected = {f"{own}{number:02x}" for own in ("a0", "b0", "c0", "5a") for number in range(WRITES)}
    with SqliteStore(path) as store:
        assert set(store.keys()) == expected
        assert all(store.get(key) == value_of(key) for key in expected)
        statistics = store.statistics()[0]
        assert (statistics.entries, statistics.corrupt) == (len(expected), 0)
        assert statistics.bytes == sum(len(key) + len(value_of(key)) for key in expected)


@pytest.mark.parametrize("writes_before_the_kill", [1, 40])
def test_what_a_killed_process_had_put_is_there(tmp_path: Path, writes_before_the_kill: int) -> None:
    path = tmp_path / "plans.sqlite"
    finished: list[str] = []
    for first in (0, 1_000_000):  # the second one finds the file as the first, killed, left it
        receiving, sending = processes.Pipe(duplex=False)
        writer = processes.Process(target=write_until_killed, args=(path, first, sending))
        writer.start()
        sending.close()
        finished += [receiving.recv() for _ in range(writes_before_the_kill)]
        writer.kill()  # SIGKILL, wherever in its next puts it is
        writer.join()
        assert writer.exitcode == -9
        with receiving:
            try:
                while True:
                    finished.append(receiving.recv())
            except (EOFError, OSError):
                pass  # all that the process said before it died
    with SqliteStore(path) as store:
        assert len(finished) >= 2 * writes_before_the_kill
        assert [store.get(key) for key in finished] == [value_of(key) for key in finished]
        # At most the put that it had no time to tell of, whole.
        unsaid = set(store.keys()) - set(finished)
        assert len(unsaid) <= 2
        assert all(store.get(key) == value_of(key) for key in unsaid)
        assert store.statistics()[0].corrupt == 0
        store.put("00", b"goes on")
        assert store.get("00") == b"goes on"


def test_sixty_four_processes_killed_at_random_lose_nothing_and_read_nothing_wrong(tmp_path: Path) -> None:
    outcome = kill_at_random(tmp_path, seconds=8.0, count=64)
    assert outcome.puts > 0
    assert outcome.reads > 0
    assert outcome.kills >= 64
    assert outcome.wrong == ()
    assert outcome.lost == ()
    assert outcome.verification.sound, outcome.verification
    assert not outcome.lock_held
