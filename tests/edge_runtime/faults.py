"""What can go wrong with what a cloud service answers, and what that does to manifests and files."""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_runtime.certificate import Certificate
from edge_runtime.digests import digest_of
from edge_runtime.wire import SelfTest

if TYPE_CHECKING:
    from edge_runtime.wire import Manifest


class Fault(enum.Enum):
    """What goes wrong with one answer: a manifest, or a file."""

    ERROR_500 = "internal error, in JSON"
    OVERLOADED = "status 429"
    REDIRECT = "status 302, to the same address"
    TRUNCATED = "the connection breaks in the middle"
    STALL = "nothing comes, until `break_stalled`; then the connection breaks"
    STALL_MIDDLE = "half of it comes, and then nothing, until `break_stalled`"
    DRIP_HEAD = "the head comes a byte at a time, for ever"
    DRIP = "the body comes a byte at a time, for ever"
    ENDLESS = "the body does not end"

    REFUSED = "status 422, in msgpack"
    GARBAGE = "status 200 and a web page, as behind a hotel's login"
    WRONG_SIGNATURE = "the signature is of another manifest"
    OTHER_KEY = "signed with a key that no device knows"
    REPLAYED = "an answer that was given before"
    NO_TFLITE = "a file with the right digest that no interpreter loads"
    OTHER_BASE = "a cut of a base that the device does not hold"
    OTHER_CLASSES = "the classes have other names"
    OTHER_INPUT = "the manifest says another input than the base's"
    OTHER_SHAPE = "the model's input is not what its manifest says"
    OTHER_USAGE = "a cut for other classes than asked for"
    OTHER_ANSWERS = "the self-test is of another model"
    OTHER_CERTIFICATE = "the certificate is of another file"
    TOO_LONG = "a file longer than the device takes"

    GONE = "status 404: the file is not held any more"
    FLIPPED_BIT = "one bit of the file is wrong"
    LONGER = "the file has more bytes than promised"
    SHORTER = "the file has fewer bytes than promised"
    NO_RANGE = "the file is sent from its start, whatever was asked for"
    OTHER_RANGE = "another part of the file is sent than was asked for"
    NOT_SATISFIABLE = "status 416"


def of_file(manifest: Manifest, content: bytes) -> Manifest:
    """Return the manifest of another file."""
    digest = digest_of(content)
    base = digest if manifest.is_base else manifest.base
    return replace(manifest, digest=digest, bytes=len(content), base=base, plan=None, certificate=None)


def wrong_manifest(manifest: Manifest, fault: Fault | None) -> Manifest:
    """Return a manifest with what a fault does to it."""
    changes: dict[Fault, dict[str, Any]] = {
        Fault.OTHER_BASE: {"base": "0" * 64},
        Fault.OTHER_CLASSES: {"classes": manifest.classes[::-1]},
        Fault.OTHER_INPUT: {"preprocessing": replace(manifest.preprocessing, height=16)},
        Fault.OTHER_USAGE: {"usage": {"something else": 1.0}},
        Fault.OTHER_ANSWERS: {"self_test": SelfTest(1, (((0, 0.123),),), 0.01)},
        Fault.OTHER_CERTIFICATE: {"certificate": Certificate("0" * 64, "1" * 64, "binomial", 0.03, 0.1, {})},
        Fault.TOO_LONG: {"bytes": 1 << 40, "plan": None},
    }
    return replace(manifest, **changes[fault]) if fault in changes else manifest


def wrong_file(content: bytes, fault: Fault | None) -> bytes:
    """Return a file with what a fault does to it."""
    if fault is Fault.FLIPPED_BIT:
        return content[:-1] + bytes([content[-1] ^ 1])
    if fault is Fault.LONGER:
        return content + b"more"
    if fault is Fault.SHORTER:
        return content[:-4]
    return content
