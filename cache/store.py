"""The seam between the cache and where its bytes lie.

A store maps keys (text, up to 512 bytes or more) to entries: opaque bytes, and what they had cost to compute. It is a
cache, not a ledger: it may drop any entry at any time, and what it returns is always what was put last under that key,
as far as this process knows, or nothing. It also lends out locks by name, so that those who share the store need not
all compute the same. All stores may be used from several threads at once.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from cache.entry import Entry, EntryInfo, Verification
    from cache.statistics import StoreStatistics

__all__ = ["LastingStore", "Store"]


class Store(Protocol):
    """Entries by key.

    Every method but `close` and `statistics` may raise `StoreError`. A store is a context manager that closes itself.
    """

    name: ClassVar[str]
    """A word for the kind of store, for statistics."""

    @abstractmethod
    def fetch(self, key: str) -> Entry | None:
        """Return the entry of `key`, or None, and mark it as just used."""

    def get(self, key: str) -> bytes | None:
        """Return the value of `key` alone."""
        entry = self.fetch(key)
        return None if entry is None else entry.value

    @abstractmethod
    def put(self, key: str, value: bytes, cost: float = 0.0) -> None:
        """Keep `value`, which took `cost` s to compute, under `key`, in place of any former; others may be evicted.

        A value that is larger than the store's whole limit is not kept; its former value is dropped all the same.
        """

    @abstractmethod
    def touch(self, key: str) -> None:
        """Mark `key` as just used, as `fetch` does, without reading it; nothing happens if it is not there."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Drop `key`; nothing happens if it is not there."""

    @abstractmethod
    def clear(self) -> None:
        """Drop every entry. Counts and locks stay."""

    @abstractmethod
    def keys(self, prefix: str = "") -> list[str]:
        """List the keys held that begin with `prefix`, in no particular order."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the entries held."""

    @abstractmethod
    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Take the lock `name`, or renew it: True if `owner` holds it from now, for `seconds` s at most.

        False, at once, while another owner holds it. After its time the lock is anybody's, so that a holder who died
        delays the others by no more. Owners are told apart among all who share the store: a random text each.
        """

    @abstractmethod
    def release(self, name: str, owner: str) -> None:
        """Give the lock `name` back; nothing happens if `owner` does not hold it (any more)."""

    @abstractmethod
    def statistics(self) -> tuple[StoreStatistics, ...]:
        """Describe this store; one made of several describes each, fastest first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files, connections and memory; closing twice is no error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class LastingStore(Store, Protocol):
    """A store that outlasts the process and is shared: one to look into from outside."""

    @abstractmethod
    def entries(self) -> list[EntryInfo]:
        """Describe the entries held, in no particular order, without reading or using their values."""

    @abstractmethod
    def verify(self, progress: Callable[[str, int, int], None] | None = None) -> Verification:
        """Read every entry, check it, and change nothing; `progress` is told "entries", how many, and of how many."""
