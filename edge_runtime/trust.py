"""What a device believes of the cloud service: whose signatures count, and what it has accepted before.

Rules
-----
1. Keys are at first those of the configuration. Signed statements lead on from there, and what they lead to is kept.
2. A configuration whose keys have changed since wins over what was kept: the owner of the device has the last word.
3. Every signed manifest has a serial. None at or below the highest one accepted is accepted again: an old model,
   however genuine, does not come back. Where the configuration has no key in common with those kept, serials start
   anew: it is another service.
4. Without the file, or with a damaged one, the configuration's keys count, and the highest serial in the slots.

`Trust` is a value and its rules are pure; `read_trust` and `write_trust` keep it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edge_runtime.digests import check_digest, digest_of
from edge_runtime.durable import write_durably
from edge_runtime.errors import DigestError, MessageError, SignatureError
from edge_runtime.messages import field, pack, unpack
from edge_runtime.signing import TrustedKeys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edge_runtime.signing import SignedManifest
    from edge_runtime.wire import Manifest

__all__ = ["Trust", "read_trust", "write_trust"]

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Trust:
    """What is believed.

    Attributes
    ----------
    roots
        Ids of the configured keys that `keys` came from.
    keys
        Whose signatures count.
    serial
        The highest one accepted.
    told
        Digest of the last cut that was rolled back and that the service was told about; None before the first.
    """

    roots: frozenset[str]
    keys: TrustedKeys
    serial: int = 0
    told: str | None = None

    @classmethod
    def of(cls, configured: TrustedKeys, kept: Trust | None, serial: int) -> Trust:
        """Return what is believed at a start.

        Parameters
        ----------
        configured
            The keys of the configuration.
        kept
            What was believed before; None where that is not known.
        serial
            The highest one of the models that are held.
        """
        roots = frozenset(configured.keys)
        if kept is None:
            return cls(roots, configured, serial)
        if roots == kept.roots:
            return kept
        if roots == frozenset(kept.keys.keys):
            return replace(kept, roots=roots)
        same_service = not roots.isdisjoint(kept.keys.keys)
        return replace(kept, roots=roots, keys=configured, serial=kept.serial if same_service else 0)

    def following(self, statements: Sequence[bytes]) -> Trust:
        """Return what is believed after the service's key statements, oldest first.

        Raises
        ------
        SignatureError
            One of them is damaged or forged.
        """
        keys = self.keys.successor(statements)
        return self if keys == self.keys else replace(self, keys=keys)

    def accepting(self, signed: SignedManifest) -> tuple[Manifest, Trust]:
        """Return a manifest that is believed, and what is believed after it.

        Raises
        ------
        SignatureError
            Its signature is wrong or of a key that does not count, or it is not newer than the last one.
        MessageError
            It breaks the wire contract.
        """
        manifest = signed.verified(self.keys)
        if manifest.serial <= self.serial:
            raise SignatureError(
                f"manifest of {manifest.digest[:12]}…: serial {manifest.serial} is not above {self.serial}, the last "
                "one accepted: an old answer was sent again, or the service lost count"
            )
        return manifest, replace(self, serial=manifest.serial)

    def telling(self, digest: str | None) -> Trust:
        """Return what is believed after the service was told that `digest`, or nothing new, was rolled back."""
        return self if digest is None else replace(self, told=digest)

    def to_bytes(self) -> bytes:
        """Encode as msgpack."""
        return pack(
            {
                "version": _VERSION,
                "roots": sorted(self.roots),
                "keys": self.keys.to_bytes(),
                "serial": self.serial,
                "told": self.told,
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Trust:
        """Decode msgpack, or raise MessageError naming the field that is wrong."""
        fields, where = unpack(content), "trust"
        version = field(fields, "version", int, where)
        if version != _VERSION:
            raise MessageError(f"{where}: version {version} is not understood here (this is version {_VERSION})")
        return cls(
            roots=frozenset(map(str, field(fields, "roots", list, where))),
            keys=TrustedKeys.from_bytes(field(fields, "keys", bytes, where)),
            serial=field(fields, "serial", int, where),
            told=field(fields, "told", (str, type(None)), where),
        )


def read_trust(path: Path) -> Trust | None:
    """Read what `write_trust` wrote; None where there is no such file.

    Raises
    ------
    MessageError
        The file is damaged or cannot be read.
    """
    try:
        envelope = unpack(path.read_bytes())
        packed = field(envelope, "trust", bytes, "file")
        check_digest(packed, field(envelope, "digest", str, "file"), "trust")
        return Trust.from_bytes(packed)
    except FileNotFoundError:
        return None
    except (OSError, DigestError, MessageError) as error:
        raise MessageError(
            f"{path}: cannot be used ({error}): going by the configuration's keys and the models held"
        ) from error


def write_trust(path: Path, trust: Trust) -> None:
    """Keep what is believed, atomically and durably.

    Raises
    ------
    OSError
        The file cannot be written; the former one stays.
    """
    packed = trust.to_bytes()
    write_durably(path, pack({"trust": packed, "digest": digest_of(packed)}))
