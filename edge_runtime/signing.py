"""Which messages of the cloud a device believes: those signed, by Ed25519, with a key that it trusts.

The rules:

* A signature covers a message's bytes as they came, after a line that says what kind of message it is: a signature of
  one kind is none of the other. Nothing is read of a message before its signature is checked.
* Which keys are trusted is `TrustedKeys`: at first the keys of the configuration, which have serial 0.
* Keys come and go by statements. A statement is a complete new set of keys with its serial, signed with a key of a set
  before it. Whoever trusts one of the keys follows the statements from there to the newest set; a serial never falls,
  so a key that was taken out stays out.

Serials of manifests, which keep old ones from coming again, are for the device to compare (`edge_runtime.trust`).
Private keys are the cloud's alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from edge_runtime.errors import ConfigError, MessageError, SignatureError, UnknownKeyError
from edge_runtime.messages import field, pack, unpack
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from typing_extensions import Self

__all__ = ["KEYS_MAX", "KeyStatement", "SignedManifest", "TrustedKeys", "key_id", "public_text"]

KEYS_MAX: Final = 64
"""Keys in a set, at most."""

_ALGORITHM: Final = "ed25519:"
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_KEYS_VERSION: Final = 1
# A manifest of 1,000 classes has some 100 kB.
_MESSAGE_BYTES_MAX: Final = 1 << 24


def key_id(public: bytes) -> str:
    """Return the name of a raw public key: the first 16 hex digits of its sha256."""
    return hashlib.sha256(public).hexdigest()[:16]


def public_text(public: bytes) -> str:
    """Return a raw public key as configurations write it: `ed25519:BASE64`."""
    return _ALGORITHM + base64.b64encode(public).decode("ascii")


def _raw_key(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.removeprefix(_ALGORITHM), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith(_ALGORITHM) or len(raw) != _KEY_BYTES:
        raise ConfigError(
            f"key '{text[:80]}' is no public key: expected 'ed25519:' and 44 characters of base64, "
            "as 'capnn keys show' prints it"
        )
    return raw


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """A set of public keys whose signatures count.

    Attributes
    ----------
    serial
        Of the statement that named them; 0 of keys from a configuration.
    keys
        Key id -> the 32 raw bytes of the public key.
    """

    serial: int
    keys: dict[str, bytes]

    @classmethod
    def of(cls, texts: Iterable[str]) -> TrustedKeys:
        """Return the set of keys that a configuration names, with serial 0.

        Raises
        ------
        ConfigError
            There is none, or one is not `ed25519:` and base64 of 32 bytes.
        """
        raw = [_raw_key(text) for text in texts]
        if not raw:
            raise ConfigError("no key is named: name at least one, as 'capnn keys show' prints it")
        return cls(0, {key_id(key): key for key in raw})

    def successor(self, statements: Sequence[bytes]) -> TrustedKeys:
        """Return the newest set that statements, oldest first, lead to from this one; itself if to none.

        A statement that is not newer, or is signed with a key that is not trusted where its turn comes, is passed over:
        a device may know any part of the chain.

        Raises
        ------
        SignatureError
            A statement is damaged, or not what its trusted key signed.
        """
        newest = self
        for statement in statements:
            stated = newest._stated(statement)
            newest = stated if stated.serial > newest.serial else newest
        return newest

    def _stated(self, content: bytes) -> TrustedKeys:
        """Return the set that a statement names; itself where the statement is of a key that is not trusted."""
        try:
            statement = KeyStatement.from_bytes(content)
            return statement.verified(self) if statement.key in self.keys else self
        except MessageError as error:
            raise SignatureError(f"{error}: the service's key statements are damaged, tell its operator") from error

    def to_bytes(self) -> bytes:
        """Encode as msgpack."""
        return pack({"version": _KEYS_VERSION, "serial": self.serial, "keys": list(self.keys.values())})

    @classmethod
    def from_bytes(cls, content: bytes) -> TrustedKeys:
        """Decode msgpack, or raise MessageError naming the field that is wrong."""
        fields, where = unpack(content, limit=_MESSAGE_BYTES_MAX), "keys"
        version = field(fields, "version", int, where)
        if version != _KEYS_VERSION:
            raise MessageError(
                f"{where}: version {version} is not understood here (this is version {_KEYS_VERSION}): "
                "update the older side"
            )
        serial, keys = field(fields, "serial", int, where), field(fields, "keys", list, where)
        if serial < 0:
            raise MessageError(f"{where}: field 'serial' is {serial}, expected 0 or more")
        if not 0 < len(keys) <= KEYS_MAX:
            raise MessageError(f"{where}: field 'keys' has {len(keys)} keys, expected 1 to {KEYS_MAX}")
        if not all(isinstance(key, bytes) and len(key) == _KEY_BYTES for key in keys):
            raise MessageError(f"{where}: field 'keys' holds what is no key of {_KEY_BYTES} bytes")
        return cls(serial, {key_id(key): key for key in keys})


@dataclass(frozen=True, slots=True)
class _Signed:
    """A message as bytes, the id of the key that signed it, and the signature."""

    packed: bytes
    key: str
    signature: bytes

    kind: ClassVar[str]

    @classmethod
    def sign(cls, packed: bytes, key: str, signer: Callable[[bytes], bytes]) -> Self:
        """Return the message signed; `signer` makes the Ed25519 signature of some bytes with the key `key`."""
        return cls(packed, key, signer(cls._covered(packed)))

    def to_bytes(self) -> bytes:
        """Encode as msgpack."""
        return pack({"packed": self.packed, "key": self.key, "signature": self.signature})

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Decode msgpack, or raise MessageError naming the field that is wrong; the signature is not checked."""
        fields, where = unpack(content, limit=_MESSAGE_BYTES_MAX), f"signed {cls.kind}"
        packed, key = field(fields, "packed", bytes, where), field(fields, "key", str, where)
        signature = field(fields, "signature", bytes, where)
        if len(signature) != _SIGNATURE_BYTES:
            raise MessageError(f"{where}: field 'signature' has {len(signature)} bytes, expected {_SIGNATURE_BYTES}")
        return cls(packed, key, signature)

    @classmethod
    def _covered(cls, packed: bytes) -> bytes:
        return f"capnn {cls.kind}\n".encode() + packed

    def _check(self, keys: TrustedKeys) -> None:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - a device imports it when an answer comes
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        public = keys.keys.get(self.key)
        if public is None:
            raise UnknownKeyError(
                f"{self.kind}: signed with key {self.key[:16]}, trusted are {', '.join(keys.keys)}: "
                "is it the right service? Its 'capnn keys show' prints the key to trust"
            )
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, self._covered(self.packed))
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"{self.kind}: the signature is not that of key {self.key}: it was damaged or forged on the way"
            ) from error


@dataclass(frozen=True, slots=True)
class SignedManifest(_Signed):
    """What the cloud answers: a packed `Manifest`, the id of the key, and the Ed25519 signature (64 bytes)."""

    kind: ClassVar[str] = "manifest"

    def verified(self, keys: TrustedKeys) -> Manifest:
        """Return the manifest.

        Raises
        ------
        SignatureError
            The signature is wrong; `UnknownKeyError` where the key is not among `keys`.
        MessageError
            It is signed and breaks the wire contract all the same.
        """
        self._check(keys)
        return Manifest.from_fields(unpack(self.packed))


@dataclass(frozen=True, slots=True)
class KeyStatement(_Signed):
    """A packed `TrustedKeys`, signed with a key of a set before it."""

    kind: ClassVar[str] = "key statement"

    def verified(self, keys: TrustedKeys) -> TrustedKeys:
        """Return the set of keys that it states; raises as `SignedManifest.verified`."""
        self._check(keys)
        return TrustedKeys.from_bytes(self.packed)
