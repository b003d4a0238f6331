"""The process that is ended, again and again: it forks children that live a device's life, and others that look.

Run with `operations.c` preloaded: `python -m tests.edge_runtime.killing.worker FOLDER MODELS SECONDS SEED`, and
`DAEMON_KILLS URL KEY` for lives of a whole daemon with the cloud there. Everything that takes time to import is
imported once, before the first fork. Prints what it did as JSON; what it finds wrong, too.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: F401 - imported before the first fork, as all that follows

from edge_runtime.classifier import EdgeClassifier  # noqa: F401
from edge_runtime.interpreter import interpreter_class
from edge_runtime.slots import ModelSlots
from tests.edge_runtime.killing import daemon_life
from tests.edge_runtime.killing.lives import LIVES, read_models, served
from tests.edge_runtime.killing.power_cut import Disk, read_log
from tests.edge_runtime.killing.preload import preloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_runtime.slots import StoredModel
    from tests.edge_runtime.killing.lives import Life

_ROUNDS_OF_A_POWER_CUT = 2


def main() -> None:
    folder, models = Path(sys.argv[1]), read_models(Path(sys.argv[2]))
    seconds, seed = float(sys.argv[3]), int(sys.argv[4])
    interpreter_class()
    worker = Worker(folder, models, random.Random(seed))
    if len(sys.argv) > 5:
        worker.run_daemon(int(sys.argv[5]), *sys.argv[6:8])
        print(json.dumps(worker.result()))
        return
    deadline = time.monotonic() + seconds
    for turn in itertools.count():
        for name, life in LIVES.items():
            worker.run(name, life)
            if turn and time.monotonic() > deadline:  # every life at every operation at least once
                break
        if time.monotonic() > deadline:
            break
    print(json.dumps(worker.result()))


class Worker:
    def __init__(self, folder: Path, models: dict[str, StoredModel], rng: random.Random) -> None:
        self.folder = folder
        self.models = models
        self.rng = rng
        self.library = preloaded()
        self.kills: Counter[str] = Counter()
        self.power_cuts: Counter[str] = Counter()
        self.served: dict[str, Counter[str]] = {}
        self.ready_s: list[float] = []
        self.wrong: list[str] = []

    def result(self) -> dict[str, Any]:
        times = sorted(self.ready_s)
        return {
            "kills": dict(self.kills),
            "power_cuts": dict(self.power_cuts),
            "served": {name: dict(counts) for name, counts in self.served.items()},
            "ready_ms": {
                str(q): round(1000 * times[min(len(times) - 1, len(times) * q // 100)], 1) for q in (50, 99, 100)
            },
            "wrong": self.wrong,
        }

    def run(self, name: str, life: Life) -> None:
        """End one life at each of its operations, whole and torn, and cut the power after each."""
        start, state = self.folder / "start", self.folder / "state"
        shutil.rmtree(start, ignore_errors=True)
        start.mkdir()
        life.before(ModelSlots(start), self.models)
        log = self.folder / "log"

        def fresh() -> None:
            shutil.rmtree(state, ignore_errors=True)
            shutil.copytree(start, state)

        fresh()
        with log.open("wb") as file:
            assert self.child(lambda: self.live(life, state, -1, 0, file.fileno())) == 0
        operations = list(read_log(log.read_bytes()))
        self.look(name, life, state, (life.serves,), "after all")

        for number in range(len(operations)):
            for torn in (0, 1) if operations[number].kind == "w" else (0,):
                fresh()
                status = self.child(partial(self.live, life, state, number, torn, -1))
                assert status == -signal.SIGKILL, f"{name}: operation {number} was not reached: {status}"
                self.kills[name] += 1
                self.look(name, life, state, life.may_serve, f"killed at {number}{' (torn)' * torn}")

        disk = Disk(start, state)
        for number, operation in enumerate(operations):
            disk.apply(operation)
            for _ in range(_ROUNDS_OF_A_POWER_CUT):
                disk.write_to(state, self.rng)
                self.power_cuts[name] += 1
                self.look(name, life, state, life.may_serve, f"power cut after {number}")
        # What is done is done: after the last operation the power may go and nothing is lost.
        for _ in range(_ROUNDS_OF_A_POWER_CUT):
            disk.write_to(state, self.rng)
            self.look(name, life, state, (life.serves,), "power cut after all")

    def run_daemon(self, kills: int, url: str, key: str) -> None:
        """End a daemon that updates, at any operation; each starts with what the one before left. The last may live."""
        start, state, log = self.folder / "start", self.folder / "state", self.folder / "log"
        start.mkdir()
        LIVES["first cut"].before(ModelSlots(start), self.models)
        shutil.copytree(start, state)
        west = self.models["west"].manifest.digest

        def live(kill_at: int, torn: int, log: int) -> None:
            self.library.watch(str(state).encode(), kill_at, torn, log)
            daemon_life.live(state, url, key, west)

        with log.open("wb") as file:
            status = self.child(partial(live, -1, 0, file.fileno()))
            assert status == 0, f"the daemon ended with {status}"
        operations = list(read_log(log.read_bytes()))
        self.look("daemon", None, state, ("west",), "after all")

        disk = Disk(start, state)
        for number, operation in enumerate(operations):
            disk.apply(operation)
            disk.write_to(state, self.rng)
            self.power_cuts["daemon"] += 1
            self.look("daemon", None, state, ("base", "west"), f"power cut after {number}")

        shutil.rmtree(state)
        shutil.copytree(start, state)
        for number in range(kills):
            # What is left to do becomes less with each: the early steps are the ones that every life takes.
            kill_at = self.rng.randrange(len(operations) >> min(number % 4, 3)) if number else 0
            status = self.child(partial(live, kill_at, number % 2, -1))
            if status != -signal.SIGKILL:
                shutil.rmtree(state)
                shutil.copytree(start, state)
                continue
            self.kills["daemon"] += 1
            self.look("daemon", None, state, ("base", "west"), f"killed at {kill_at}")
        assert self.child(partial(live, -1, 0, -1)) == 0, "the daemon did not come to its end"
        self.look("daemon", None, state, ("west",), "after all")

    def live(self, life: Life, state: Path, kill_at: int, torn: int, log: int) -> None:
        self.library.watch(str(state).encode(), kill_at, torn, log)
        life.steps(ModelSlots(state), self.models)

    def look(self, name: str, life: Life | None, state: Path, allowed: tuple[str | None, ...], when: str) -> None:
        """See what a restart serves, and let it live the life again, if one is given, which must come to its end."""

        def restart() -> None:
            begun = time.monotonic()
            found = served(state, self.models)
            os.write(pipe[1], f"{time.monotonic() - begun} {found}".encode())
            assert found in allowed, f"{found} serves"
            if life is not None and "after all" not in when:
                life.steps(ModelSlots(state), self.models)
                again = served(state, self.models)
                assert again == life.serves, f"{found} served, then the same was done again, and {again} serves"

        pipe = os.pipe()
        status = self.child(restart)
        os.close(pipe[1])
        said = os.read(pipe[0], 1000).decode()
        os.close(pipe[0])
        if status != 0:
            self.wrong.append(f"{name}, {when}: restart ended with {status}")
        if said:
            seconds, _, found = said.partition(" ")
            self.ready_s.append(float(seconds))
            self.served.setdefault(name, Counter())[found] += 1

    def child(self, run: Callable[[], object]) -> int:
        """Fork, run, and return the exit status; minus the signal that ended it."""
        process = os.fork()
        if process == 0:
            try:
                run()
            except BaseException:  # noqa: BLE001 - a child must end here
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
