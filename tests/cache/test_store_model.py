"""Random operations on each store, beside a plain dictionary in order of use that says what the store must hold."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache import LayeredStore, MemoryStore, SqliteStore, Store

KEYS = st.sampled_from(["00", "01", "a0", "ff", "a0a0"])
VALUES = st.binary(max_size=40)


class StoreMachine(RuleBasedStateMachine):
    """A store and its model: the entries from the least to the most recently used, within `limit` bytes."""

    limit: ClassVar[float] = math.inf

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "plans.sqlite"
        self.store = self.open()
        self.model: dict[str, bytes] = {}

    def open(self) -> Store:
        raise NotImplementedError

    def size(self) -> int:
        return sum(len(key) + len(value) for key, value in self.model.items())

    def use(self, key: str) -> None:
        if key in self.model:
            self.model[key] = self.model.pop(key)

    @rule(key=KEYS, value=VALUES)
    def put(self, key: str, value: bytes) -> None:
        self.store.put(key, value)
        self.model.pop(key, None)
        if len(key) + len(value) > self.limit:
            return
        self.model[key] = value
        while self.size() > self.limit:
            del self.model[next(iter(self.model))]

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.store.get(key) == self.model.get(key)
        self.use(key)

    @rule(key=KEYS)
    def touch(self, key: str) -> None:
        self.store.touch(key)
        self.use(key)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.model.pop(key, None)

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert sorted(self.store.keys()) == sorted(self.model)
        assert len(self.store) == len(self.model)
        assert self.store.statistics()[-1].bytes == self.size()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


class FileMachine(StoreMachine):
    """One whose entries, and their order of use, outlive the closing of the store."""

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()


class MemoryMachine(StoreMachine):
    def open(self) -> Store:
        return MemoryStore(1_000_000)


class LimitedMemoryMachine(StoreMachine):
    limit = 100

    def open(self) -> Store:
        return MemoryStore(100)


class LimitedCostMachine(StoreMachine):
    """All cost the same per byte, that is nothing: then the least recently used goes first."""

    limit = 100

    def open(self) -> Store:
        return MemoryStore(100, "cost")


class SqliteMachine(FileMachine):
    def open(self) -> Store:
        return SqliteStore(self.path)


class LimitedSqliteMachine(FileMachine):
    limit = 100

    def open(self) -> Store:
        return SqliteStore(self.path, max_bytes=100)


class LayeredMachine(FileMachine):
    """Memory for about two entries: whatever it evicts is still in the file, so the whole is without limit."""

    def open(self) -> Store:
        return LayeredStore(MemoryStore(60), SqliteStore(self.path))


QUICK = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])

for machine in (
    MemoryMachine,
    LimitedMemoryMachine,
    LimitedCostMachine,
    SqliteMachine,
    LimitedSqliteMachine,
    LayeredMachine,
):
    machine.TestCase.settings = QUICK

TestMemory = MemoryMachine.TestCase
TestLimitedMemory = LimitedMemoryMachine.TestCase
TestLimitedByCost = LimitedCostMachine.TestCase
TestSqlite = SqliteMachine.TestCase
TestLimitedSqlite = LimitedSqliteMachine.TestCase
TestLayered = LayeredMachine.TestCase
