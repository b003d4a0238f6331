"""The files that the service has named to devices lately, by digest: the base model, cuts, and the plans of cuts.

What is kept of a cut is its plan, a few kB, from which it is made again when it is asked for. The cuts asked for last
stay in memory as well: a device fetches a file right after its manifest, and resumes where the connection broke.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, TypeVar

from cachetools import LRUCache

from edge_runtime.flatmodel import PruningPlan

if TYPE_CHECKING:
    from cloud_pruner.personalized import Personalized
    from edge_runtime.flatmodel import BaseModel

__all__ = ["ReleasedFiles"]

_PLANS_BYTES: Final = 64 << 20
_CUTS_BYTES: Final = 128 << 20

_Content = TypeVar("_Content", bytes, memoryview)


class ReleasedFiles:
    """Files by their sha256; for any number of threads.

    Parameters
    ----------
    base
        The base model, which is always there.
    plans_bytes, cuts_bytes
        How much of plans and of cuts is kept; what was not asked for the longest goes first.
    """

    def __init__(self, base: BaseModel, *, plans_bytes: int = _PLANS_BYTES, cuts_bytes: int = _CUTS_BYTES) -> None:
        self._base = base
        self._plans: LRUCache[str, bytes] = LRUCache(plans_bytes, getsizeof=len)
        self._plans_of_cuts: LRUCache[str, bytes] = LRUCache(plans_bytes, getsizeof=len)
        self._cuts: LRUCache[str, memoryview] = LRUCache(cuts_bytes, getsizeof=len)
        self._turn = threading.Lock()

    def release(self, answer: Personalized) -> None:
        """Keep the files that the manifest of `answer` names."""
        manifest = answer.manifest
        with self._turn:
            if manifest.plan is not None:
                _keep(self._plans, manifest.plan.digest, answer.plan)
            _keep(self._plans_of_cuts, manifest.digest, answer.plan)
            _keep(self._cuts, manifest.digest, answer.model)

    def get(self, digest: str) -> bytes | memoryview | None:
        """Return a file; None where it was never released here, or is no longer kept."""
        if digest == self._base.digest:
            return memoryview(self._base.content)
        with self._turn:
            content: bytes | memoryview | None = self._cuts.get(digest) or self._plans.get(digest)
            plan = self._plans_of_cuts.get(digest)
        if content is None and plan is not None:
            content = made = self._base.apply(PruningPlan.from_bytes(plan))
            with self._turn:
                _keep(self._cuts, digest, made)
        return content


def _keep(files: LRUCache[str, _Content], digest: str, content: _Content) -> None:
    if len(content) <= files.maxsize:
        files[digest] = content
