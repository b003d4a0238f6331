"""Keys that sign as the cloud does, for tests of those who check."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_runtime.messages import pack
from edge_runtime.signing import KeyStatement, SignedManifest, TrustedKeys, key_id, public_text

if TYPE_CHECKING:
    from edge_runtime.wire import Manifest


class TestKey:
    """A new signing key.

    Attributes
    ----------
    id, public
        Its name, and its public half as configurations write it.
    """

    __test__ = False  # for pytest, which takes every Test... for a test case

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.private = Ed25519PrivateKey.generate()
        raw = self.private.public_key().public_bytes_raw()
        self.id, self.public = key_id(raw), public_text(raw)

    def sign(self, manifest: Manifest, serial: int | None = None) -> SignedManifest:
        """Sign a manifest, with another serial if one is given."""
        if serial is not None:
            manifest = replace(manifest, serial=serial)
        return SignedManifest.sign(pack(manifest.to_fields()), self.id, self.private.sign)

    def statement(self, serial: int, *keys: TestKey) -> bytes:
        """State, signed with this key, that from `serial` on exactly `keys` are trusted."""
        trusted = TrustedKeys(serial, TrustedKeys.of(key.public for key in keys).keys)
        return KeyStatement.sign(trusted.to_bytes(), self.id, self.private.sign).to_bytes()
