"""The answer to a request: a cut model and what is known of it, and the form in which the cache keeps it."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache

from edge_runtime.certificate import ClassEvidence
from edge_runtime.digests import check_digest
from edge_runtime.errors import EdgeError
from edge_runtime.flatmodel import PruningPlan
from edge_runtime.messages import pack, unpack
from edge_runtime.wire import ClassFigures, Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_pruner.asked import Asked
    from edge_runtime.flatmodel import BaseModel

__all__ = ["DecodedAnswers", "Personalized", "decode", "encode", "fields_of"]

# Of the encoded form; decoded, an answer takes about three times as much.
_DECODED_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Personalized:
    """A cut model.

    Attributes
    ----------
    manifest
        What it is, and where it came from.
    plan
        The encoded `PruningPlan` that makes `model` from the base.
    base
        The model that was cut.
    held_out
        Per class of the request: the same figures on the *certify* images, which the search never saw; empty where the
        profile has none.
    shortfall
        In one line, why no more could be certified; empty where all that the search found was, or nothing had to be.
    layers
        Layer name -> (units, units kept).
    found_size
        Parameters of the cut that the search found, relative to the base's; what was certified of it may be larger.
    walk
        What was counted of each class at each cut of the certified path, up to the one that is shipped.
    seconds
        What this answer took.
    """

    manifest: Manifest
    plan: bytes
    base: BaseModel = field(repr=False, compare=False)
    held_out: dict[str, ClassFigures]
    shortfall: str
    layers: dict[str, tuple[int, int]]
    found_size: float
    walk: tuple[dict[str, ClassEvidence], ...]
    seconds: float

    @property
    def model(self) -> memoryview:
        """The .tflite file; made each time: most answers go to devices that fetch the plan, or have the file."""
        return self.base.apply(PruningPlan.from_bytes(self.plan))

    def answering(self, asked: Asked, tier: str) -> Personalized:
        """Return the same cut as the answer to a request for the same classes or fewer, found in a tier of the cache.

        Figures and evidence of the other classes are left out; what is claimed of these stays as it was shown.
        """
        names = asked.names
        manifest, certificate = self.manifest, self.manifest.certificate
        if certificate is not None:
            certificate = dataclasses.replace(certificate, classes=_only(certificate.classes, names))
        return dataclasses.replace(
            self,
            manifest=dataclasses.replace(
                manifest,
                usage=asked.weights,
                per_class=_only(manifest.per_class, names),
                certificate=certificate,
                cache_tier=tier,
            ),
            held_out=_only(self.held_out, names),
            walk=tuple(_only(step, names) for step in self.walk),
        )


def encode(answer: Personalized) -> bytes:
    """Return what the cache keeps: all but the file, which the plan makes again."""
    fields: dict[str, Any] = {
        "manifest": answer.manifest.to_fields(),
        "plan": answer.plan,
        "held_out": {name: figures.to_fields() for name, figures in answer.held_out.items()},
        "shortfall": answer.shortfall,
        "layers": {name: list(counts) for name, counts in answer.layers.items()},
        "found_size": answer.found_size,
        "walk": [{name: evidence.to_fields() for name, evidence in step.items()} for step in answer.walk],
    }
    return pack(fields)


def fields_of(content: bytes) -> dict[str, Any] | None:
    """Return the fields of what `encode` gave, unchecked; None for anything else."""
    try:
        return unpack(content)
    except EdgeError:
        return None


def decode(fields: Mapping[str, Any], base: BaseModel) -> Personalized | None:
    """Read the answer, and check that its plan makes its file; None where anything is missing or does not fit."""
    try:
        model = base.apply(PruningPlan.from_bytes(fields["plan"]))
        manifest = Manifest.from_fields(fields["manifest"])
        check_digest(model, manifest.digest, "cut made from a stored plan")
        return Personalized(
            manifest=manifest,
            plan=fields["plan"],
            base=base,
            held_out={name: ClassFigures.from_fields(f, name) for name, f in fields["held_out"].items()},
            shortfall=fields["shortfall"],
            layers={name: (int(units), int(kept)) for name, (units, kept) in fields["layers"].items()},
            found_size=float(fields["found_size"]),
            walk=tuple(
                {name: ClassEvidence.from_fields(f, name) for name, f in step.items()} for step in fields["walk"]
            ),
            seconds=0.0,
        )
    except (EdgeError, AttributeError, KeyError, TypeError, ValueError):
        # Whatever is wrong with a stored entry, a search puts it right.
        return None


class DecodedAnswers:
    """Stored answers as `decode` reads them, each decoded and checked once while it is in use.

    For any number of threads.

    Parameters
    ----------
    base
        The model that they are cuts of.
    max_bytes
        Of the encoded answers that are kept decoded; what was not asked for the longest goes first.
    """

    def __init__(self, base: BaseModel, max_bytes: int = _DECODED_BYTES) -> None:
        self._base = base
        self._decoded: LRUCache[str, tuple[bytes, Personalized]] = LRUCache(max_bytes, getsizeof=lambda it: len(it[0]))
        self._turn = threading.Lock()

    def of(self, key: str, content: bytes) -> Personalized | None:
        """Return the answer that is stored under `key` as `content`; None where that is damaged."""
        with self._turn:
            known = self._decoded.get(key)
        if known is not None and known[0] == content:
            return known[1]
        fields = fields_of(content)
        answer = None if fields is None else decode(fields, self._base)
        if answer is not None and len(content) <= self._decoded.maxsize:
            with self._turn:
                self._decoded[key] = content, answer
        return answer


def _only(by_name: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: by_name[name] for name in names if name in by_name}
