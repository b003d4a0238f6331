"""Several stores as one: the fastest that has an entry answers, and those above it keep a copy."""
# ruff: noqa: D102 - the seam, store.py, describes the methods that a store must have

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cache.errors import StoreError
from cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.entry import Entry
    from cache.statistics import StoreStatistics

__all__ = ["Found", "LayeredStore"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry, and the store that had it."""

    entry: Entry
    store: str
    """That store's name."""


class LayeredStore(Store):
    """Read through and write through a row of stores, such as memory over SQLite over Redis.

    A layer that fails while an entry is read or put (disk full, file not writable, server away) is passed over: the
    request is answered from the others, the layer counts the fault, and each kind of fault is logged once. So it is
    with locks: they are those of the slowest layer that works, since most processes share that one. `delete`, `clear`,
    `keys` and `len` raise instead, since their answer would not be true.

    A put that one layer missed leaves that layer's former value in place, and an entry may come back from a lower
    layer while another thread deletes it. Neither does harm under keys that name everything the value was computed
    from, as here.

    Parameters
    ----------
    *layers
        The stores, fastest first. They are closed with this one.
    """

    name: ClassVar[str] = "layered"

    def __init__(self, *layers: Store) -> None:
        self._layers = layers
        self._logged: set[str] = set()
        self._logging = threading.Lock()

    def find(self, key: str) -> Found | None:
        """Return the entry of `key` and the store that had it, or None; copy it into the faster layers."""
        for depth, layer in enumerate(self._layers):
            entry = None
            with self._passing_over_faults():
                entry = layer.fetch(key)
            if entry is None:
                continue
            for faster in self._layers[:depth]:
                with self._passing_over_faults():
                    faster.put(key, entry.value, entry.cost)
            # The layers below saw none of this use. Untold, they would evict first what is asked for most.
            for slower in self._layers[depth + 1 :]:
                with self._passing_over_faults():
                    slower.touch(key)
            return Found(entry, layer.name)
        return None

    def fetch(self, key: str) -> Entry | None:
        found = self.find(key)
        return None if found is None else found.entry

    def put(self, key: str, value: bytes, cost: float = 0.0) -> None:
        for layer in self._layers:
            with self._passing_over_faults():
                layer.put(key, value, cost)

    def touch(self, key: str) -> None:
        for layer in self._layers:
            with self._passing_over_faults():
                layer.touch(key)

    def delete(self, key: str) -> None:
        for layer in reversed(self._layers):  # the slowest first: nothing is left to copy back from
            layer.delete(key)

    def clear(self) -> None:
        for layer in reversed(self._layers):
            layer.clear()

    def keys(self, prefix: str = "") -> list[str]:
        return list(set().union(*(layer.keys(prefix) for layer in self._layers)))

    def keys_within_reach(self, prefix: str = "") -> set[str]:
        """Return the keys that begin with `prefix` in those layers that work."""
        found: set[str] = set()
        for layer in self._layers:
            with self._passing_over_faults():
                found.update(layer.keys(prefix))
        return found

    def __len__(self) -> int:
        return len(self.keys())

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        for layer in reversed(self._layers):
            with self._passing_over_faults():
                return layer.acquire(name, owner, seconds)
        return True  # no layer works: nothing is shared, so that there is nobody to wait for

    def release(self, name: str, owner: str) -> None:
        for layer in self._layers:  # all of them: any may have lent it, while those below it failed
            with self._passing_over_faults():
                layer.release(name, owner)

    def statistics(self) -> tuple[StoreStatistics, ...]:
        return tuple(statistics for layer in self._layers for statistics in layer.statistics())

    def close(self) -> None:
        for layer in self._layers:
            layer.close()

    @contextmanager
    def _passing_over_faults(self) -> Iterator[None]:
        """Go on after a layer's fault, and log it unless its like was logged before."""
        try:
            yield
        except StoreError as error:
            with self._logging:
                known = str(error) in self._logged
                self._logged.add(str(error))
            if not known:
                _log.warning("cache goes on without a store that fails: %s", error)
