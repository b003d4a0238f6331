"""Where a device keeps its models, so that a power cut at any instant leaves a verified one to serve.

::

    STATE/base/               the uncut base model
    STATE/a/, STATE/b/        the two slots for cuts, used in turn
        model.tflite
        manifest.msgpack      the manifest and its own digest
        manifest.next         the one of a model that is just coming in
    STATE/active              one line, "a", "b" or "base"; not there before the first cut
    STATE/probation.msgpack   how far the probation of the active cut has come; not there without one
    STATE/rejected.msgpack    the cuts that were given up, by digest, and why

Rules
-----
1. A model is written to the slot that is *not* active: both files, synced, then read back and verified.
2. Only then the pointer `active` is replaced, by one rename, and the folder synced. Until then the former model is the
   active one.
3. Nothing leaves this module that does not have the digests that were stored with it. LiteRT validates little: it loads
   many damaged files.
4. A damaged active slot gives way to the other slot, which holds the cut that was active before; then comes the base.
5. A cut begins its probation by the same rename: what is kept of it is written before the pointer, and means nothing
   while another cut is active. It ends with one write to `rejected`: from then on that cut is never read again, and the
   pointer follows.
6. A cut on probation that ends the process, three times, is given up before it is loaded a fourth time.

Signatures are checked when a model comes in, not here: a key that is revoked later must not stop a device.
"""

from __future__ import annotations

import contextlib
import fcntl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.digests import check_digest, digest_of
from edge_runtime.durable import sync_folder, write_durably
from edge_runtime.errors import ConfigError, DigestError, MessageError
from edge_runtime.messages import field, pack, unpack
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import IO, Any

__all__ = ["BASE", "ModelSlots", "StoredModel"]

BASE = "base"
_CUT_SLOTS = ("a", "b")

_MODEL = "model.tflite"
_MANIFEST = "manifest.msgpack"
_NEXT = "manifest.next"
_PROBATION = "probation.msgpack"
_REJECTED = "rejected.msgpack"
_STARTS_MAX = 3
_REJECTED_MAX = 64


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model file's bytes with the manifest that they were verified against.

    Raises
    ------
    DigestError
        `content` is not what `manifest` promises.
    """

    manifest: Manifest
    content: bytes | memoryview

    def __post_init__(self) -> None:
        check_digest(self.content, self.manifest.digest, "model")


class ModelSlots:
    """The models in the folder `folder`. One writer at a time (see `lock`); readers need no lock.

    Parameters
    ----------
    folder
        The state folder; made by `lock` or the first `install` where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock_file: IO[str] | None = None

    def lock(self) -> None:
        """Claim the folder for this process until `unlock` or the process's end, however it ends.

        Raises
        ------
        ConfigError
            Another process holds it, or it cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
            lock_file = _opened(self.folder / "lock")
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: cannot be used as state folder ({error.strerror}): choose another with --state"
            ) from error
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock_file.close()
            raise ConfigError(
                f"{self.folder}: is in use by another capnn-edge run: stop that, or choose another with --state"
            ) from error
        self._lock_file = lock_file

    def unlock(self) -> None:
        """Give the folder free."""
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def read(self, slot: str) -> StoredModel | None:
        """Return the verified model of `slot` ("base", "a" or "b"), or None where there never was one.

        Raises
        ------
        DigestError
            The slot is damaged: a file is missing, cannot be read, or is not what its digest says.
        """
        folder = self.folder / slot
        if not folder.is_dir():
            return None
        try:
            return self._read(folder, _MANIFEST)
        except DigestError:
            with contextlib.suppress(DigestError):
                return self._read(folder, _NEXT)
            raise

    @staticmethod
    def _read(folder: Path, name: str) -> StoredModel:
        try:
            envelope = unpack((folder / name).read_bytes())
            packed = field(envelope, "manifest", bytes, "file")
            check_digest(packed, field(envelope, "digest", str, "file"), "manifest")
            return StoredModel(Manifest.from_fields(unpack(packed)), (folder / _MODEL).read_bytes())
        except (DigestError, MessageError) as error:
            raise DigestError(f"{folder}: {error}") from error
        except OSError as error:
            raise DigestError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error

    def cut_slots(self) -> tuple[str, ...]:
        """Return the slots that may hold the cut to serve, best first; none where the base is the active model.

        A damaged pointer means that there is a cut, but not which: both slots are worth a try.
        """
        try:
            active = (self.folder / "active").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ()
        except (OSError, ValueError):
            active = "damaged"
        if active == BASE:
            return ()
        if active not in _CUT_SLOTS:
            return _CUT_SLOTS
        return (active, *(slot for slot in _CUT_SLOTS if slot != active))

    def install_base(self, model: StoredModel) -> None:
        """Store the base model. Cuts in the slots stay; whoever reads them compares their manifest's `base` with it.

        Raises
        ------
        OSError, DigestError
            It cannot be written, or reads back differently.
        """
        self._write(BASE, model)

    def free_slot(self, serving: str | None) -> str:
        """Return the slot for the next cut while the one in `serving` ("a", "b", or None for the base) serves."""
        return _CUT_SLOTS[1] if serving == _CUT_SLOTS[0] else _CUT_SLOTS[0]

    def install_cut(self, model: StoredModel, slot: str, *, probation: Mapping[str, Any] | None = None) -> None:
        """Store a cut, which must have been tried before, in the free slot `slot`, and make it the active model.

        Parameters
        ----------
        probation
            What to keep of its probation, which begins; None for none.

        Raises
        ------
        OSError, DigestError
            It cannot be written, or reads back differently; the former model stays active.
        """
        former = next(iter(self.cut_slots()), BASE)
        self._write(slot, model)
        if probation is None:
            self.end_probation()
        else:
            record = {"digest": model.manifest.digest, "slot": slot, "former": former, "starts": 0}
            self._write_record(_PROBATION, {**record, "state": dict(probation)})
        self._point_to(slot)

    def start(self) -> str | None:
        """Count a start of the process; to be called before models are loaded.

        A file that ends the process would do so at every start: after three starts in one probation, none of which came
        to a clean end, the cut is given up. Returns the reason then, else None; also where nothing can be written.
        """
        record = self._probation()
        if record is None:
            return None
        reason = f"the process ended {_STARTS_MAX} times while it was on probation"
        with contextlib.suppress(OSError):
            if record["starts"] >= _STARTS_MAX:
                self.roll_back(record["digest"], reason)
                return reason
            self._write_record(_PROBATION, {**record, "starts": record["starts"] + 1})
        return None

    def probation(self, digest: str) -> dict[str, Any] | None:
        """Return what was kept of the probation of the cut `digest`; None where it is not on probation."""
        record = self._probation()
        return record["state"] if record is not None and record["digest"] == digest else None

    def save_probation(self, digest: str, state: Mapping[str, Any], *, stopped: bool = False) -> None:
        """Keep how far the probation of the cut `digest` has come; `stopped`: this process ends, and cleanly.

        Raises
        ------
        OSError
            It cannot be written; what was kept before stays.
        """
        record = self._probation()
        if record is not None and record["digest"] == digest:
            starts = 0 if stopped else record["starts"]
            self._write_record(_PROBATION, {**record, "starts": starts, "state": dict(state)})

    def end_probation(self) -> None:
        """Keep the active cut for good.

        Raises
        ------
        OSError
            It cannot be written; the probation goes on after the next start.
        """
        (self.folder / _PROBATION).unlink(missing_ok=True)
        sync_folder(self.folder)

    def roll_back(self, digest: str, reason: str) -> None:
        """Never serve the cut `digest` again; the model that was active before it becomes the active one.

        Raises
        ------
        OSError
            It cannot be written. Where the reason is written and the pointer is not, the cut is not served either.
        """
        record, active = self._probation(), next(iter(self.cut_slots()), BASE)
        if record is not None and record["digest"] == digest:
            active = record["former"]
        elif self._holds(active, digest):
            active = BASE
        rejected = [*((known, why) for known, why in self.rejected().items() if known != digest), (digest, reason)]
        self._write_record(_REJECTED, dict(rejected[-_REJECTED_MAX:]))
        self._point_to(active)
        self.end_probation()

    def rejected(self) -> dict[str, str]:
        """Return the cuts that were given up, by digest, with the reason; the newest last."""
        fields = self._read_record(_REJECTED) or {}
        return {digest: str(reason) for digest, reason in fields.items()}

    def _holds(self, slot: str, digest: str) -> bool:
        try:
            stored = self.read(slot)
        except DigestError:
            return False
        return stored is not None and stored.manifest.digest == digest

    def _probation(self) -> dict[str, Any] | None:
        """Return the record of the active cut's probation; None without one."""
        record = self._read_record(_PROBATION)
        try:
            if record is not None:
                for name, kind in (("digest", str), ("starts", int), ("state", dict)):
                    field(record, name, kind, _PROBATION)
                active = next(iter(self.cut_slots()), BASE)
                if record.get("slot") != active or record.get("former") not in (BASE, *_CUT_SLOTS):
                    return None
        except MessageError:
            return None
        return record

    def _read_record(self, name: str) -> dict[str, Any] | None:
        """Return a small record; None where there is none, or a damaged one: it is worth less than a running device."""
        try:
            envelope = unpack((self.folder / name).read_bytes())
            packed = field(envelope, "record", bytes, name)
            check_digest(packed, field(envelope, "digest", str, name), name)
            return unpack(packed)
        except (OSError, DigestError, MessageError):
            return None

    def _write_record(self, name: str, fields: Mapping[str, Any]) -> None:
        packed = pack(fields)
        write_durably(self.folder / name, pack({"record": packed, "digest": digest_of(packed)}))

    def _point_to(self, slot: str) -> None:
        write_durably(self.folder / "active", f"{slot}\n".encode("ascii"))

    def _write(self, slot: str, model: StoredModel) -> None:
        folder = self.folder / slot
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self.folder)
        manifest = pack(model.manifest.to_fields())
        # At every step one of the two manifests is that of the file: a base that is replaced has no other slot.
        write_durably(folder / _NEXT, pack({"manifest": manifest, "digest": digest_of(manifest)}))
        write_durably(folder / _MODEL, model.content)
        (folder / _NEXT).replace(folder / _MANIFEST)
        sync_folder(folder)
        if self.read(slot) != model:
            raise DigestError(f"{folder}: reads back differently from what was written: is the disk failing?")


def _opened(path: Path) -> IO[str]:
    """Open a file that need only be there: a disk that became read-only stops no device."""
    try:
        return path.open("a", encoding="ascii")
    except OSError:
        with contextlib.suppress(OSError):
            return path.open(encoding="ascii")
        raise
