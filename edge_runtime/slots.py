"""Where a device keeps its models, so that a power cut at any instant leaves a verified one to serve.

::

    STATE/base/            the uncut base model
    STATE/a/, STATE/b/     the two slots for cuts, used in turn
        model.tflite
        manifest.msgpack   the manifest and its own digest
    STATE/active           one line, "a" or "b"; not there while the base is the active model

Rules
-----
1. A model is written to the slot that is *not* active: both files, synced, then read back and verified.
2. Only then the pointer `active` is replaced, by one rename, and the folder synced. Until then the former model is the
   active one.
3. Nothing leaves this module that does not have the digests that were stored with it. LiteRT validates little: it loads
   many damaged files.
4. A damaged active slot gives way to the other slot, which holds the cut that was active before; then comes the base.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.digests import check_digest, digest_of
from edge_runtime.durable import sync_folder, write_durably
from edge_runtime.errors import ConfigError, DigestError, MessageError
from edge_runtime.messages import field, pack, unpack
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

__all__ = ["BASE", "ModelSlots", "StoredModel"]

BASE = "base"
_CUT_SLOTS = ("a", "b")


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
            lock_file = (self.folder / "lock").open("w")
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
            envelope = unpack((folder / "manifest.msgpack").read_bytes())
            packed = field(envelope, "manifest", bytes, "file")
            check_digest(packed, field(envelope, "digest", str, "file"), "manifest")
            return StoredModel(Manifest.from_fields(unpack(packed)), (folder / "model.tflite").read_bytes())
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

    def install_cut(self, model: StoredModel, slot: str) -> None:
        """Store a cut, which must have been tried before, in the free slot `slot`, and make it the active model.

        Raises
        ------
        OSError, DigestError
            It cannot be written, or reads back differently; the former model stays active.
        """
        self._write(slot, model)
        write_durably(self.folder / "active", f"{slot}\n".encode("ascii"))

    def _write(self, slot: str, model: StoredModel) -> None:
        folder = self.folder / slot
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self.folder)
        manifest = pack(model.manifest.to_fields())
        write_durably(folder / "model.tflite", model.content)
        write_durably(folder / "manifest.msgpack", pack({"manifest": manifest, "digest": digest_of(manifest)}))
        if self.read(slot) != model:
            raise DigestError(f"{folder}: reads back differently from what was written: is the disk failing?")
