"""Many processes on one SQLite file, killed at random: nothing wrong is ever read, nothing that was put is lost.

python -m tests.cache.killing --seconds 60 --processes 64
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache import SqliteStore, StoreError, Verification

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

# A server that has imported this module forks them: a fresh interpreter each would cost more than the work itself.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["cache"])

SHARED = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    puts: int
    """Puts that returned before their process was killed, or that of another process under the same key."""
    reads: int
    kills: int
    faults: dict[str, int]
    """How often each kind of fault was met: a file that frozen or many other processes keep locked."""
    wrong: tuple[str, ...]
    """What was read and is not what any process had put under that key."""
    lost: tuple[str, ...]
    """Keys whose put had returned, and that are not there."""
    verification: Verification
    lock_held: bool
    """Whether a lock of a killed process is still held after its time."""


def value_of(key: str, writer: str) -> bytes:
    return f"{key}:{writer}:".encode() * random.Random(key).randint(1, 300)


def right(key: str, value: bytes | None) -> bool:
    return value is not None and value == value_of(key, value.split(b":")[1].decode())


def work(path: Path, notes: Path, seed: int) -> None:
    """Put and get at random until killed; note each put that has returned, each wrong answer, and counts."""
    choose = random.Random(seed)
    me = str(os.getpid())
    # What was written to a file outlives a killed process, as long as the machine runs.
    with (notes / me).open("ab", buffering=0) as note, SqliteStore(path) as store:
        for number in range(10**9):
            own = choose.random() < 0.5
            key = f"{me}-{number}" if own else f"shared {choose.randrange(SHARED)}"
            try:
                if choose.random() < 0.5:
                    store.put(key, value_of(key, me), 1.0)
                    note.write(f"put\t{key}\n".encode())
                else:
                    key = f"shared {choose.randrange(SHARED)}"
                    value = store.get(key)
                    note.write(b"read\t\n" if value is None or right(key, value) else f"wrong\t{key}\n".encode())
                if choose.random() < 0.1 and store.acquire("lock", me, 1.0) and choose.random() < 0.5:
                    store.release("lock", me)
            except StoreError as error:
                note.write(f"fault\t{str(error).removeprefix(str(path))}\n".encode())
                time.sleep(0.1)  # a service would go on without the store


def kill_at_random(folder: Path, seconds: float, count: int, seed: int = 0) -> Outcome:
    choose = random.Random(seed)
    path, notes = folder / "plans.sqlite", folder / "notes"
    notes.mkdir()
    kills = 0

    def start() -> BaseProcess:
        worker = processes.Process(target=work, args=(path, notes, choose.randrange(1 << 30)))
        worker.start()
        return worker

    workers = [start() for _ in range(count)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(choose.uniform(0.0, 0.1))
        number = choose.randrange(count)
        if choose.random() < 0.2:  # frozen in whatever it does, for a moment
            os.kill(workers[number].pid or 0, signal.SIGSTOP)
            time.sleep(choose.uniform(0.0, 0.1))
            os.kill(workers[number].pid or 0, signal.SIGCONT)
            continue
        workers[number].kill()
        workers[number].join()
        kills += 1
        workers[number] = start()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
    kills += count
    time.sleep(1.0)  # the locks' time
    lines = [line.split("\t") for file in notes.iterdir() for line in file.read_text().splitlines()]
    said: dict[str, list[str]] = {"put": [], "read": [], "wrong": [], "fault": []}
    for kind, what in lines:
        said[kind].append(what)
    with SqliteStore(path) as store:
        lost = tuple(sorted(key for key in set(said["put"]) if not right(key, store.get(key))))
        held = not store.acquire("lock", "the test", 60.0)
        verification = store.verify()
    return Outcome(
        puts=len(said["put"]),
        reads=len(said["read"]),
        kills=kills,
        faults=dict(Counter(said["fault"])),
        wrong=tuple(said["wrong"]),
        lost=lost,
        verification=verification,
        lock_held=held,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(kill_at_random(Path(folder), arguments.seconds, arguments.processes, seed=random.randrange(1 << 30)))


if __name__ == "__main__":
    main()
