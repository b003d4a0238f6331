"""The store on a Redis or Valkey server: shared by the machines of a service.

===========================  ===================================================================================
name                         holds
===========================  ===================================================================================
`PREFIX:2:entry:KEY`         an entry as in entry.py, for `_KEPT_SECONDS` from its last use
`PREFIX:2:keys`              sorted set of the KEYs, all of score 0, so that those with a prefix are found at once
`PREFIX:2:lock:NAME`         a lock's owner, for as long as it was taken
===========================  ===================================================================================

The 2 is the schema version: programs of different versions share a server and do not meet. The server evicts by its
own `maxmemory` and `maxmemory-policy`; what it evicted leaves the set of keys when it is next asked for. Entries and
locks expire, so that `volatile-lru` evicts entries and leaves the set alone.

Every call is bounded by a time limit. After one that could not reach the server, the store raises at once, without
trying, until a thread that asks once a second has had an answer: a dead or hanging server costs one request the time
limit, and the others nothing.

Source: the Redis documentation of SET, GETEX, ZRANGE BYLEX and of its scripts (which are atomic).
"""
# ruff: noqa: D102 - the seam, store.py, describes the methods that a store must have

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from cache.entry import HEADER_BYTES, SCHEMA_VERSION, Entry, EntryInfo, Verification, decode, encode, size_of, told
from cache.errors import StoreError, WrongStoreError
from cache.statistics import StoreStatistics
from cache.store import LastingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["RedisStore"]

_KEPT_SECONDS = 30 * 24 * 3600
_PROBE_SECONDS = 1.0
_REMEMBERED_USES = 4096
_BATCH = 500

# Scripts rather than pipelines also because a pipeline's errors quote the entry.
_PUT = """
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
"""
_DELETE = """
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
"""
_FETCH = """
local entry = redis.call('GETEX', KEYS[1], 'EX', ARGV[2])
if not entry then redis.call('ZREM', KEYS[2], ARGV[1]) end
return entry
"""
# Only the damaged entry itself: another process may have put a good one in its place.
_DROP = """
if redis.call('GET', KEYS[1]) == ARGV[2] then
    redis.call('DEL', KEYS[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
end
"""
_ACQUIRE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

_log = logging.getLogger(__name__)


class RedisStore(LastingStore):
    """Keep entries on a Redis (6.2 or later) or Valkey server.

    Whether there is a server is found out by using it: one that is away makes operations raise, not the constructor.

    Parameters
    ----------
    url
        Where it is: `redis://[[user]:password@]host[:port][/database]`, `rediss://` for TLS, `unix://path`.
    prefix
        What the names of all keys on the server begin with.
    timeout
        Longest time, in s, to wait for a connection or an answer.

    Raises
    ------
    WrongStoreError
        If `url` is none that Redis has.
    StoreError
        If the package redis is not installed.
    """

    name: ClassVar[str] = "redis"

    def __init__(self, url: str, *, prefix: str = "capnn", timeout: float = 0.25) -> None:
        try:
            import redis  # noqa: PLC0415 - an extra that most installations lack
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.retry import Retry  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise StoreError("the package redis is not installed: pip install 'capnn[redis]'") from error
        # A connection that the server closed meanwhile is opened anew, once; a time limit that passed is no reason to.
        retry = Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,))
        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry, decode_responses=False
            )
        except (ValueError, TypeError) as error:
            raise WrongStoreError(f"{_without_password(url)}: {error}") from error
        self._where = _without_password(url)
        self._errors = redis.exceptions
        self._entry_name = f"{prefix}:{SCHEMA_VERSION}:entry:"
        self._lock_name = f"{prefix}:{SCHEMA_VERSION}:lock:"
        self._index = f"{prefix}:{SCHEMA_VERSION}:keys"
        self._put = self._client.register_script(_PUT)
        self._delete = self._client.register_script(_DELETE)
        self._fetch = self._client.register_script(_FETCH)
        self._drop = self._client.register_script(_DROP)
        self._acquire = self._client.register_script(_ACQUIRE)
        self._release = self._client.register_script(_RELEASE)
        self._uses: deque[str] = deque(maxlen=_REMEMBERED_USES)
        self._state = threading.Lock()
        self._hits = self._misses = self._corrupt = self._faults = 0
        self._away = ""  # why the server cannot be used now
        self._closed = threading.Event()

    def fetch(self, key: str) -> Entry | None:
        with self._server():
            kept = self._fetch(keys=[self._entry_name + key, self._index], args=[key, _KEPT_SECONDS])
            entry = None if kept is None else decode(key, kept)
            if kept is not None and entry is None:
                self._drop(keys=[self._entry_name + key, self._index], args=[key, kept])
        with self._state:
            self._hits += entry is not None
            self._misses += entry is None
            self._corrupt += kept is not None and entry is None
        return entry

    def put(self, key: str, value: bytes, cost: float = 0.0) -> None:
        kept = encode(key, Entry(value, cost), time.time())
        with self._server():
            self._put(keys=[self._entry_name + key, self._index], args=[key, kept, _KEPT_SECONDS])
            if used := list({self._uses.popleft() for _ in range(len(self._uses))}):
                self._ask_each(used, ("EXPIRE", _KEPT_SECONDS), raise_on_error=False)

    def touch(self, key: str) -> None:
        self._uses.append(key)  # told to the server with the next put: what the memory answers must not wait for it

    def delete(self, key: str) -> None:
        with self._server():
            self._delete(keys=[self._entry_name + key, self._index], args=[key])

    def clear(self) -> None:
        with self._server():
            # By the names themselves, since an entry whose key the server evicted from the set must go too.
            batch: list[bytes] = []
            for name in self._client.scan_iter(match=_literally(self._entry_name) + "*", count=_BATCH):
                batch.append(name)
                if len(batch) == _BATCH:
                    self._client.unlink(*batch)
                    batch.clear()
            self._client.unlink(self._index, *batch)

    def keys(self, prefix: str = "") -> list[str]:
        with self._server():
            return self._keys(prefix)

    def __len__(self) -> int:
        with self._server():
            return int(self._client.zcard(self._index))

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        with self._server():
            return bool(self._acquire(keys=[self._lock_name + name], args=[owner, max(int(seconds * 1000), 1)]))

    def release(self, name: str, owner: str) -> None:
        with self._server():
            self._release(keys=[self._lock_name + name], args=[owner])

    def entries(self) -> list[EntryInfo]:
        now = time.time()
        with self._server():
            found = []
            for keys in _batches(self._keys()):
                answers = self._ask_each(
                    keys, ("GETRANGE", 0, HEADER_BYTES - 1), ("STRLEN",), ("OBJECT IDLETIME",), raise_on_error=False
                )
                for key, (header, length, idle) in zip(keys, answers, strict=True):
                    if length:  # else the server has evicted it
                        # Servers that evict by frequency do not know when a key was used.
                        last_used = now - idle if isinstance(idle, int) else None
                        found.append(told(key, header, length, last_used))
            return found

    def verify(self, progress: Callable[[str, int, int], None] | None = None) -> Verification:
        read, corrupt = 0, []
        with self._server():
            listed = self._keys()
            for keys in _batches(listed):
                if progress is not None:
                    progress("entries", read, len(listed))
                for key, kept in zip(keys, self._client.mget([self._entry_name + key for key in keys]), strict=True):
                    read += kept is not None
                    if kept is not None and decode(key, kept) is None:
                        corrupt.append(key)
        return Verification(self.name, read, tuple(corrupt))

    def statistics(self) -> tuple[StoreStatistics, ...]:
        entries: int | None = None
        size: int | None = None
        with suppress(StoreError), self._server(counted=False):
            entries = size = 0
            for keys in _batches(self._keys()):
                for key, (length,) in zip(keys, self._ask_each(keys, ("STRLEN",)), strict=True):
                    entries += length > 0
                    size += size_of(key, b"") + length - HEADER_BYTES if length else 0
        with self._state:
            return (
                StoreStatistics(
                    name=self.name,
                    entries=entries,
                    bytes=size,
                    hits=self._hits,
                    misses=self._misses,
                    corrupt=self._corrupt,
                    faults=self._faults,
                ),
            )

    def close(self) -> None:
        self._closed.set()
        self._client.close()

    def _keys(self, prefix: str = "") -> list[str]:
        least, beyond = b"[" + prefix.encode(), b"(" + prefix.encode() + b"\xff"  # no text in UTF-8 has that byte
        return [key.decode(errors="replace") for key in self._client.zrange(self._index, least, beyond, bylex=True)]

    def _ask_each(
        self, keys: Sequence[str], *commands: tuple[str | int, ...], raise_on_error: bool = True
    ) -> list[tuple[Any, ...]]:
        """Return what commands answer for each entry; a command's other arguments follow the entry's name."""
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                for command, *arguments in commands:
                    pipeline.execute_command(*str(command).split(), self._entry_name + key, *arguments)
            answers = pipeline.execute(raise_on_error=raise_on_error)
        return list(zip(*[iter(answers)] * len(commands), strict=True))

    @contextmanager
    def _server(self, *, counted: bool = True) -> Iterator[None]:
        """Turn the client's errors into ours; without a call if the server was away when last asked."""
        if self._closed.is_set():
            raise StoreError(f"{self._where}: the store is closed: open it anew")
        if away := self._away:
            self._count_fault(counted=counted)
            raise StoreError(away)
        try:
            yield
        except self._errors.RedisError as error:
            self._count_fault(counted=counted)
            raise self._failed(error) from error

    def _count_fault(self, *, counted: bool) -> None:
        with self._state:
            self._faults += counted

    def _failed(self, error: Exception) -> StoreError:
        if not isinstance(error, (self._errors.ConnectionError, self._errors.TimeoutError)):
            return StoreError(f"{self._where}: {error}: see the server's settings, maxmemory-policy above all")
        text = f"{self._where}: {error}: see that the server runs, can be reached, and that the password is right"
        with self._state:
            first, self._away = not self._away, text
        if first:
            threading.Thread(target=self._wait_for_return, name="cache-redis-probe", daemon=True).start()
        return StoreError(text)

    def _wait_for_return(self) -> None:
        """Ask the server once a second, until it answers or the store is closed."""
        while not self._closed.wait(_PROBE_SECONDS):
            with suppress(self._errors.RedisError):
                self._client.ping()
                self._away = ""
                _log.info("cache uses %s again", self._where)
                return


def _without_password(url: str) -> str:
    """Return a URL that may be shown."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}".partition("?")[0]


def _literally(text: str) -> str:
    """Escape what a pattern of Redis would take for a wildcard."""
    return "".join(f"\\{character}" if character in "*?[]\\" else character for character in text)


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(keys), _BATCH):
        yield keys[first : first + _BATCH]
