"""The table of results: one row for each request, what its cut is and what is shown of it; and the digest of all rows.

The digest does not depend on the order of the rows, nor on anything that may differ between two runs over the same
requests (times, who worked what, where a row stood): equal digests mean equal answers, bit for bit.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack

from cloud_pruner.personalized import fields_of
from edge_runtime.digests import digest_of
from edge_runtime.durable import sync_folder
from edge_runtime.errors import EdgeError
from edge_runtime.messages import pack
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    import builtins
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from cloud_pruner.asked import Asked
    from cloud_pruner.profile import Profile

__all__ = ["CutFigures", "ResultsWriter"]

_ROWS_AT_ONCE: Final = 16_384


@dataclass(frozen=True, slots=True)
class CutFigures:
    """What the table says of a cut.

    Attributes
    ----------
    digest, plan
        sha256 of the cut file, and of the plan that makes it; the base's own and "" where nothing could be pruned.
    bytes, plan_bytes
        Their lengths.
    relative_size
        Parameters relative to the base's.
    certified
        Whether there is a certificate.
    p_value
        The largest of any class in the certificate; None without.
    margin
        Epsilon less what that class loses that loses most, in top-1 accuracy on the images of the search.
    shortfall
        In one line, why no more could be certified; "" where all that was found was.
    evidence
        sha256 over all that the cache keeps of the cut: plan, figures, certificate, self-test.
    """

    digest: str
    plan: str
    bytes: int
    plan_bytes: int
    relative_size: float
    certified: bool
    p_value: float | None
    margin: float
    shortfall: str
    evidence: str

    @classmethod
    def of(cls, kept: builtins.bytes, profile: Profile) -> CutFigures | None:
        """Read what a cache keeps under a key of this profile; None where it is something else."""
        fields = fields_of(kept)
        try:
            if fields is None:
                return None
            manifest, plan, shortfall = Manifest.from_fields(fields["manifest"]), fields["plan"], fields["shortfall"]
            described = {**fields["manifest"], "usage": {}}  # each request has its own
            if (manifest.base, manifest.profile) != (profile.base.digest, profile.digest):
                return None
            if manifest.plan is not None and manifest.plan.digest != digest_of(plan):
                return None
        except (EdgeError, KeyError, TypeError):
            return None
        losses = [figures.base_accuracy - figures.accuracy for figures in manifest.per_class.values()]
        shown = manifest.certificate
        return cls(
            digest=manifest.digest,
            plan=manifest.plan.digest if manifest.plan is not None else "",
            bytes=manifest.bytes,
            plan_bytes=manifest.plan.bytes if manifest.plan is not None else 0,
            relative_size=manifest.relative_size,
            certified=shown is not None,
            p_value=max(one.p_value for one in shown.classes.values()) if shown is not None else None,
            margin=manifest.epsilon - max(losses, default=0.0),
            shortfall=str(shortfall),
            evidence=digest_of(pack({**fields, "manifest": described})),
        )


class ResultsWriter:
    """Writes the table as a stream, and adds up what it comes to; the file appears when all of it is written.

    Attributes
    ----------
    rows, failed, certified
        How many requests there were, how many of them have no cut, and how many a certified one.
    size_sum, bytes_sum
        Of the cuts of all requests that have one: relative sizes, and bytes.
    """

    def __init__(self, path: Path) -> None:
        self.rows = self.failed = self.certified = self.bytes_sum = 0
        self.size_sum = 0.0
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._digests: list[bytes] = []
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        from pyarrow import parquet  # noqa: PLC0415 - takes a while to load

        self._schema = _schema()
        self._file = self._partial.open("wb")
        self._table = parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file:
                if kind is None:
                    self._write()
                self._table.close()
                self._file.flush()
                os.fsync(self._file.fileno())
            if kind is None:
                self._partial.replace(self._path)
                sync_folder(self._path.parent)
        finally:
            self._partial.unlink(missing_ok=True)

    def add(self, number: int, device: str, asked: Asked, found: CutFigures | str) -> None:
        """Add the row of a request: its cut, or in one line why there is none."""
        request = asked.request
        row: dict[str, Any] = {
            "device": device,
            "key": asked.key,
            "usage": list(asked.weights.items()),
            "variant": asked.method.name,
            "epsilon": request.epsilon,
            "guarantee": request.guarantee,
            "delta": request.delta if asked.is_certified else None,
            "objective": request.objective if asked.method.variant is None else None,
        }
        if isinstance(found, str):
            row["error"] = found
            self.failed += 1
        else:
            row |= {name: getattr(found, name) for name in CutFigures.__slots__}
            self.certified += found.certified
            self.size_sum += found.relative_size
            self.bytes_sum += found.bytes
        self.rows += 1
        self._digests.append(hashlib.sha256(msgpack.packb(row, use_bin_type=True)).digest())
        self._waiting.append({"row": number, **row})
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._write()

    def digest(self) -> str:
        """Return the digest of the rows so far: sha256 over theirs, sorted."""
        return digest_of(b"".join(sorted(self._digests)))

    def _write(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - as above

        self._table.write_table(pa.Table.from_pylist(self._waiting, self._schema))
        self._waiting.clear()


def _schema() -> Any:
    import pyarrow as pa  # noqa: PLC0415 - as above

    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            ("row", pa.int64()),
            ("device", text),
            ("key", text),
            ("usage", pa.map_(text, number)),
            ("variant", text),
            ("epsilon", number),
            ("guarantee", text),
            ("delta", number),
            ("objective", text),
            ("digest", text),
            ("plan", text),
            ("bytes", pa.int64()),
            ("plan_bytes", pa.int64()),
            ("relative_size", number),
            ("certified", pa.bool_()),
            ("p_value", number),
            ("margin", number),
            ("shortfall", text),
            ("evidence", text),
            ("error", text),
        ]
    )
