"""Signs manifests with the keys of a folder, as they are at that moment."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from cloud_pruner.serials import Serials, wall_clock
from cloud_pruner.signing_keys import STATEMENTS, SigningKeys
from edge_runtime.messages import pack
from edge_runtime.signing import SignedManifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from edge_runtime.wire import Manifest

__all__ = ["Signer"]


class Signer:
    """Signs with the keys of a folder; for any number of threads. Follows `capnn keys rotate` and `revoke` at once.

    Parameters
    ----------
    folder
        Made by `signing_keys.generate`.
    clock
        Says the time in microseconds since 1970.

    Raises
    ------
    SigningKeyError, OSError
        As `SigningKeys.open` and `Serials`.
    """

    def __init__(self, folder: Path, clock: Callable[[], int] = wall_clock) -> None:
        self._path = folder / STATEMENTS
        self._turn = threading.Lock()
        self._read_at = self._state()  # before it is read: what changes meanwhile is read again
        self._keys = SigningKeys.open(folder)
        self._serials = Serials(folder / "serial", clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        self._serials.close()

    @property
    def keys(self) -> SigningKeys:
        """The keys as they are now; raises as `SigningKeys.open`."""
        with self._turn:
            state = self._state()
            if state != self._read_at:
                self._keys, self._read_at = SigningKeys.open(self._keys.folder), state
            return self._keys

    def sign(self, manifest: Manifest) -> SignedManifest:
        """Sign a manifest with the next serial; raises as `SigningKeys.open` and `Serials.next`."""
        keys = self.keys
        signed = dataclasses.replace(manifest, serial=self._serials.next())
        return SignedManifest.sign(pack(signed.to_fields()), keys.signing, keys.private.sign)

    def _state(self) -> tuple[int, int] | None:
        """Return what tells the file of statements from the one that replaces it; None where there is none."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns
