"""The folder of keys that the cloud signs with: made, shown, replaced, taken out.

==================  ====================================================================================================
`statements`        the signed statements on keys, oldest first, as `/v1/keys` answers them; the last one says which
                    keys are trusted, and the first key that it names is the one that signs
`KEY_ID.pem`        a private key (PKCS 8), for its owner alone
`serial`            the last serial (`serials`)
`lock`              held by whoever changes the folder
==================  ====================================================================================================

Whoever can read a private key decides what every device runs. A change writes the new private key first and then
replaces `statements` in one step, so that a change that is cut off changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgpack
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cloud_pruner.errors import SigningKeyError
from edge_runtime.durable import sync_folder, write_durably
from edge_runtime.errors import MessageError, SignatureError
from edge_runtime.signing import KEYS_MAX, KeyStatement, TrustedKeys, key_id, public_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["STATEMENTS", "SigningKeys", "generate", "revoke", "rotate"]

STATEMENTS: Final = "statements"
"""File of a folder of keys that changes with its keys."""

_LOCK: Final = "lock"
_MAKE: Final = "make some with 'capnn keys generate'"


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The keys of a folder.

    Attributes
    ----------
    folder
        Where they are.
    trusted
        The keys that devices are to trust now; the first one signs.
    private
        The one that signs.
    statements
        How devices get to know of them, oldest first.
    """

    folder: Path
    trusted: TrustedKeys
    private: Ed25519PrivateKey
    statements: tuple[bytes, ...]

    @classmethod
    def open(cls, folder: Path) -> SigningKeys:
        """Read and check a folder of keys.

        Raises
        ------
        SigningKeyError
            It holds no keys, is damaged, or others may read its private key.
        OSError
            It cannot be read.
        """
        with _locked(folder):
            return _read_keys(folder)

    @property
    def signing(self) -> str:
        """The id of the key that signs."""
        return next(iter(self.trusted.keys))

    @property
    def public(self) -> str:
        """The key that signs as a device's configuration names it: `ed25519:BASE64`."""
        return public_text(self.trusted.keys[self.signing])


def generate(folder: Path) -> SigningKeys:
    """Make a folder with a new key.

    Raises
    ------
    SigningKeyError
        The folder holds keys already.
    OSError
        It cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / _LOCK).touch(0o600)
    with _locked(folder):
        if (folder / STATEMENTS).exists():
            raise SigningKeyError(f"{folder}: holds keys already: replace the key with 'capnn keys rotate'")
        private, public = _new_private(folder)
        return _state(folder, {key_id(public): public}, private, (private,), ())


def rotate(folder: Path) -> SigningKeys:
    """Sign with a new key from now on; the former ones stay trusted until they are revoked.

    Raises
    ------
    SigningKeyError, OSError
        As `SigningKeys.open`; or there are as many keys as devices take.
    """
    with _locked(folder):
        keys = _read_keys(folder)
        if len(keys.trusted.keys) == KEYS_MAX:
            raise SigningKeyError(f"{folder}: {KEYS_MAX} keys are trusted: take old ones out with 'capnn keys revoke'")
        private, public = _new_private(folder)
        trusted = {key_id(public): public, **keys.trusted.keys}
        # By the new key as well: a device that is given no other than that would not learn of its end otherwise.
        return _state(folder, trusted, private, (keys.private, private), keys.statements)


def revoke(folder: Path, key: str) -> SigningKeys:
    """Take a key out: devices stop trusting it when they next ask for the statements. Its private half is deleted.

    Raises
    ------
    SigningKeyError, OSError
        As `SigningKeys.open`; or the key is not among those trusted, or is the only one.
    """
    with _locked(folder):
        keys = _read_keys(folder)
        if key not in keys.trusted.keys:
            known = ", ".join(keys.trusted.keys)
            raise SigningKeyError(f"{folder}: there is no key '{key[:80]}' to revoke: name one of these: {known}")
        remaining = {name: public for name, public in keys.trusted.keys.items() if name != key}
        if not remaining:
            raise SigningKeyError(
                f"{folder}: {key} is the only key, without it no device could be reached: 'capnn keys rotate' first"
            )
        # Signed by one that stays: the one that goes may be in other hands.
        private = _read_private(folder, next(iter(remaining)))
        changed = _state(folder, remaining, private, (private,), keys.statements)
        (folder / f"{key}.pem").unlink(missing_ok=True)
        sync_folder(folder)
        return changed


def _state(
    folder: Path,
    trusted: dict[str, bytes],
    private: Ed25519PrivateKey,
    signers: Sequence[Ed25519PrivateKey],
    statements: tuple[bytes, ...],
) -> SigningKeys:
    """Add to former `statements` that these keys are `trusted`, once for each signer; `private` signs from now on."""
    serial = _last_stated(statements, folder).serial if statements else 0
    for signer in signers:
        serial += 1
        signer_id = key_id(signer.public_key().public_bytes_raw())
        stated = KeyStatement.sign(TrustedKeys(serial, trusted).to_bytes(), signer_id, signer.sign)
        statements = (*statements, stated.to_bytes())
    write_durably(folder / STATEMENTS, msgpack.packb(list(statements), use_bin_type=True))
    return SigningKeys(folder, TrustedKeys(serial, trusted), private, statements)


def _new_private(folder: Path) -> tuple[Ed25519PrivateKey, bytes]:
    """Make a key, keep its private half, and return it with the raw public one."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    path = folder / f"{key_id(public)}.pem"
    content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return private, public


def _read_keys(folder: Path) -> SigningKeys:
    statements = _read_statements(folder / STATEMENTS)
    trusted = _last_stated(statements, folder)
    return SigningKeys(folder, trusted, _read_private(folder, next(iter(trusted.keys))), statements)


def _read_private(folder: Path, key: str) -> Ed25519PrivateKey:
    path = folder / f"{key}.pem"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        raise SigningKeyError(f"{path}: the private key is missing: restore it from a copy of the folder") from None
    if mode & 0o077:
        raise SigningKeyError(f"{path}: others may read or write the private key: chmod 600, and ask who has read it")
    try:
        private = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey) or key_id(private.public_key().public_bytes_raw()) != key:
        raise SigningKeyError(f"{path}: is damaged, or of another key: restore it from a copy of the folder")
    return private


def _read_statements(path: Path) -> tuple[bytes, ...]:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise SigningKeyError(f"{path.parent}: holds no signing keys: {_MAKE}") from None
    try:
        statements = msgpack.unpackb(content)
    except (ValueError, msgpack.UnpackException):
        statements = None
    if not isinstance(statements, list) or not statements or not all(isinstance(one, bytes) for one in statements):
        raise SigningKeyError(f"{path}: is damaged: restore it from a copy of the folder")
    return tuple(statements)


def _last_stated(statements: tuple[bytes, ...], folder: Path) -> TrustedKeys:
    """Return the keys that the last statement names, after following every one of them."""
    damaged = f"{folder / STATEMENTS}: is damaged: restore it from a copy of the folder"
    try:
        first = TrustedKeys.from_bytes(KeyStatement.from_bytes(statements[0]).packed)
        sets = [TrustedKeys(0, first.keys)]
        for statement in statements:
            sets.append(sets[-1].successor([statement]))
    except (MessageError, SignatureError) as error:
        raise SigningKeyError(f"{damaged} ({error})") from error
    if any(after.serial <= before.serial for before, after in itertools.pairwise(sets)):
        raise SigningKeyError(damaged)
    return sets[-1]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others from changing the folder."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise SigningKeyError(f"{folder}: holds no signing keys: {_MAKE}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
