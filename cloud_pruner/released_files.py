"""The files that the service has named to devices, by digest: base models, cuts, and the plans of cuts.

What is kept of a cut is its plan, a few kB, from which it is made again when it is asked for: every worker, and one
that was started anew, serves whatever any of them has named. The cuts asked for last stay in memory as well: a device
resumes where the connection broke.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache, TTLCache
from sqlalchemy import bindparam, or_, select

from cloud_pruner.state.tables import BASES, FILES
from edge_runtime.flatmodel import PruningPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_pruner.personalized import Personalized
    from cloud_pruner.state.database import Database
    from cloud_pruner.state.files import FileStore
    from edge_runtime.flatmodel import BaseModel

__all__ = ["ReleasedFiles"]

_PLANS_BYTES: Final = 16 << 20
_CUTS_BYTES: Final = 128 << 20
_RELEASED: Final = 65_536
# After this a file is looked for again before it is named: somebody may have found it damaged.
_RELEASED_S: Final = 60.0

_NAMED: Final = select(FILES.c.cut, FILES.c.plan, FILES.c.base).where(
    or_(FILES.c.cut == bindparam("file"), FILES.c.plan == bindparam("file"))
)


class ReleasedFiles:
    """Files by their sha256; for any number of threads.

    Parameters
    ----------
    bases
        The base models that are served; cuts of others are not made any more.
    store
        Where the plans lie.
    database
        Where it says which plan makes which cut.
    cuts_bytes
        How much of cuts is kept in memory; what was not asked for the longest goes first.

    Raises
    ------
    StateError
        The database is away.
    """

    def __init__(
        self, bases: Sequence[BaseModel], store: FileStore, database: Database, *, cuts_bytes: int = _CUTS_BYTES
    ) -> None:
        self._bases = {base.digest: base for base in bases}
        self._store = store
        self._database = database
        self._released: TTLCache[tuple[str, str], bool] = TTLCache(_RELEASED, _RELEASED_S)
        self._plans: LRUCache[str, bytes] = LRUCache(_PLANS_BYTES, getsizeof=len)
        self._cuts: LRUCache[str, memoryview] = LRUCache(cuts_bytes, getsizeof=len)
        self._turn = threading.Lock()
        self._add = database.insert(FILES).on_conflict_do_nothing(index_elements=[FILES.c.cut, FILES.c.plan])
        with database.writing() as connection:
            for base in self._bases.values():
                connection.execute(
                    database.insert(BASES)
                    .values(digest=base.digest, bytes=len(base.content))
                    .on_conflict_do_nothing(index_elements=[BASES.c.digest])
                )

    def ping(self) -> None:
        """Raise StateError where the store of plans is away."""
        self._store.ping()

    def release(self, answer: Personalized) -> None:
        """Keep what makes the files that the manifest of `answer` names; when this returns, it is there to stay.

        Raises
        ------
        StateError
            It cannot be kept now: the manifest must not be sent.
        """
        manifest = answer.manifest
        if manifest.plan is None:  # the base itself
            return
        with self._turn:
            if (manifest.digest, manifest.plan.digest) in self._released:
                return
        if not self._store.has(manifest.plan.digest):
            self._store.put(manifest.plan.digest, answer.plan)
        if (manifest.digest, manifest.plan.digest, manifest.base) not in self._named(manifest.digest):
            entry = {"cut": manifest.digest, "plan": manifest.plan.digest, "base": manifest.base}
            self._database.write(lambda connection: connection.execute(self._add, entry))
        with self._turn:
            self._released[manifest.digest, manifest.plan.digest] = True

    def get(self, digest: str) -> bytes | memoryview | None:
        """Return a file; None where no manifest has named it, or its base is not served any more.

        Raises
        ------
        StateError
            It cannot be looked for now.
        """
        if digest in self._bases:
            return memoryview(self._bases[digest].content)
        with self._turn:
            content: bytes | memoryview | None = self._cuts.get(digest) or self._plans.get(digest)
        if content is not None:
            return content
        for cut, plan, base in self._named(digest):
            if digest == plan:
                return self._plan(plan)
            if base in self._bases and (encoded := self._plan(plan)) is not None:
                made = self._bases[base].apply(PruningPlan.from_bytes(encoded))
                with self._turn:
                    if len(made) <= self._cuts.maxsize:
                        self._cuts[cut] = made
                return made
        return None

    def _named(self, digest: str) -> list[tuple[str, str, str]]:
        """Return digests of cut, plan and base, for each plan of a cut or for a plan; none for what was never named."""
        with self._database.reading() as connection:
            return [(row.cut, row.plan, row.base) for row in connection.execute(_NAMED, {"file": digest})]

    def _plan(self, digest: str) -> bytes | None:
        with self._turn:
            known = self._plans.get(digest)
        content = known if known is not None else self._store.get(digest)
        with self._turn:
            if content is None:
                self._released.clear()  # whoever names it next puts it there again
            elif len(content) <= self._plans.maxsize:
                self._plans[digest] = content
        return content
