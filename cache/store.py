"""The seam between the cache and where its bytes lie.

A store maps keys (hexadecimal text) to values (opaque bytes). It is a cache, not a ledger: it may drop any entry at
any time, and what it returns is always what was put last under that key, as far as this process knows, or nothing.
All stores may be used from several threads at once.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from cache.statistics import StoreStatistics

__all__ = ["Store"]


class Store(Protocol):
    """Bytes by key.

    Every method but `close` and `statistics` may raise `StoreError`. A store is a context manager that closes itself.
    """

    name: ClassVar[str]
    """A word for the kind of store, for statistics."""

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return the value of `key`, or None, and mark it as just used."""

    @abstractmethod
    def put(self, key: str, value: bytes) -> None:
        """Keep `value` under `key`, in place of any former value; other entries may be evicted for it.

        A value that is larger than the store's whole limit is not kept; its former value is dropped all the same.
        """

    @abstractmethod
    def touch(self, key: str) -> None:
        """Mark `key` as just used, as `get` does, without reading it; nothing happens if it is not there."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Drop `key`; nothing happens if it is not there."""

    @abstractmethod
    def clear(self) -> None:
        """Drop every entry. The counts stay."""

    @abstractmethod
    def keys(self) -> list[str]:
        """List the keys held, in no particular order."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the entries held."""

    @abstractmethod
    def statistics(self) -> tuple[StoreStatistics, ...]:
        """Describe this store; one made of several describes each, fastest first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and memory; closing twice is no error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
