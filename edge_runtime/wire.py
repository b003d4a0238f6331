"""The contract between device and cloud: what a device asks and what it is answered, and how both become bytes.

Messages are small frozen dataclasses. On the wire they are msgpack maps (or the same maps in JSON); every reader
checks every field and names the one that is wrong. Unknown fields are ignored, so that an older reader understands a
newer writer; a change that an older reader must not misread raises `WIRE_VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_runtime.certificate import Certificate
from edge_runtime.errors import MessageError
from edge_runtime.messages import field, pack, unpack
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MSGPACK",
    "WIRE_VERSION",
    "ClassFigures",
    "Manifest",
    "PersonalizeAnswer",
    "PersonalizeRequest",
]

WIRE_VERSION = 1
MSGPACK = "application/vnd.msgpack"


def _usage(value: Mapping[Any, Any], where: str) -> dict[str, float]:
    return {str(name): field(value, name, float, f"{where}: usage") for name in value}


def _wish(fields: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    return None if fields.get(name) is None else field(fields, name, kind, where)


@dataclass(frozen=True, slots=True)
class PersonalizeRequest:
    """What a device asks for: a cut of `base` for the classes that its user meets.

    Attributes
    ----------
    base
        Digest of the base model that the device holds.
    usage
        Class name -> how often it comes up; any non-negative scale, the cloud normalises it.
    device
        A name for logs; identifies nobody.
    variant, epsilon, guarantee, delta
        Wishes that override the service's defaults, or None: how to prune ("L", "W", ...); allowed loss of top-1
        accuracy per class, in (0, 1); "certified" or "empirical"; how likely a certificate may be wrong, in (0, 1).
    want_model
        Whether the answer should carry the file, or only the plan that makes it from the base.
    """

    base: str
    usage: dict[str, float]
    device: str = "device"
    variant: str | None = None
    epsilon: float | None = None
    guarantee: str | None = None
    delta: float | None = None
    want_model: bool = True

    def to_fields(self) -> dict[str, Any]:
        """Return the message as plain values."""
        return {
            "version": WIRE_VERSION,
            "base": self.base,
            "usage": self.usage,
            "device": self.device,
            "variant": self.variant,
            "epsilon": self.epsilon,
            "guarantee": self.guarantee,
            "delta": self.delta,
            "want_model": self.want_model,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> PersonalizeRequest:
        """Read the message, or raise MessageError naming the field that is wrong."""
        where = "request"
        _check_version(fields, where)
        return cls(
            base=field(fields, "base", str, where),
            usage=_usage(field(fields, "usage", dict, where), where),
            device=field({"device": "device", **fields}, "device", str, where),
            variant=_wish(fields, "variant", str, where),
            epsilon=_wish(fields, "epsilon", float, where),
            guarantee=_wish(fields, "guarantee", str, where),
            delta=_wish(fields, "delta", float, where),
            want_model=field({"want_model": True, **fields}, "want_model", bool, where),
        )


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Top-1 accuracy of one class, over all outputs, of base and cut on the same `n` images."""

    n: int
    base_accuracy: float
    accuracy: float

    def to_fields(self) -> dict[str, Any]:
        """Return the message as plain values."""
        return {"n": self.n, "base_accuracy": self.base_accuracy, "accuracy": self.accuracy}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], where: str) -> ClassFigures:
        """Read the message, or raise MessageError naming the field that is wrong."""
        return cls(
            n=field(fields, "n", int, where),
            base_accuracy=field(fields, "base_accuracy", float, where),
            accuracy=field(fields, "accuracy", float, where),
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model file is: travels with it, and is what a device checks it against.

    Attributes
    ----------
    digest, bytes
        sha256 and length of the file.
    base, profile
        Digests of the base model and of the profile that the cut was made from; for a base model itself `base` equals
        `digest` and `profile` names the profile it is served with.
    classes
        Names of all outputs, in their order.
    preprocessing
        How an image becomes the model's input.
    usage
        The classes that the cut is for, with their weights (sum 1); empty for a base model.
    variant, epsilon, guarantee
        How it was cut and what was asked of it; `guarantee` is "certified" (shown on images that the search never saw),
        "empirical" (measured on the search's own images) or "none" (a base model).
    relative_size, parameters
        Parameters relative to the base's, and their number.
    per_class
        Per class of `usage`: accuracy of base and cut on the images of the search.
    cache_tier
        Where the cut came from: "search" or the tier of the cache that answered.
    certificate
        The evidence, of a certified cut that prunes anything.
    """

    digest: str
    bytes: int
    base: str
    profile: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    usage: dict[str, float]
    variant: str
    epsilon: float
    guarantee: str
    relative_size: float
    parameters: int
    per_class: dict[str, ClassFigures]
    cache_tier: str
    certificate: Certificate | None = None

    @property
    def is_base(self) -> bool:
        """Whether this is the uncut base model."""
        return self.digest == self.base

    def to_fields(self) -> dict[str, Any]:
        """Return the message as plain values."""
        return {
            "version": WIRE_VERSION,
            "digest": self.digest,
            "bytes": self.bytes,
            "base": self.base,
            "profile": self.profile,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "usage": self.usage,
            "variant": self.variant,
            "epsilon": self.epsilon,
            "guarantee": self.guarantee,
            "relative_size": self.relative_size,
            "parameters": self.parameters,
            "per_class": {name: figures.to_fields() for name, figures in self.per_class.items()},
            "cache_tier": self.cache_tier,
            "certificate": None if self.certificate is None else self.certificate.to_fields(),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Manifest:
        """Read the message, or raise MessageError naming the field that is wrong."""
        where = "manifest"
        _check_version(fields, where)
        per_class = field(fields, "per_class", dict, where)
        return cls(
            digest=field(fields, "digest", str, where),
            bytes=field(fields, "bytes", int, where),
            base=field(fields, "base", str, where),
            profile=field(fields, "profile", str, where),
            classes=tuple(str(name) for name in field(fields, "classes", list, where)),
            preprocessing=Preprocessing.from_dict(field(fields, "preprocessing", dict, where)),
            usage=_usage(field(fields, "usage", dict, where), where),
            variant=field(fields, "variant", str, where),
            epsilon=field(fields, "epsilon", float, where),
            guarantee=field(fields, "guarantee", str, where),
            relative_size=field(fields, "relative_size", float, where),
            parameters=field(fields, "parameters", int, where),
            per_class={
                name: ClassFigures.from_fields(field(per_class, name, dict, where), f"{where}: {name}")
                for name in per_class
            },
            cache_tier=field(fields, "cache_tier", str, where),
            certificate=None
            if fields.get("certificate") is None
            else Certificate.from_fields(field(fields, "certificate", dict, where)),
        )


@dataclass(frozen=True, slots=True)
class PersonalizeAnswer:
    """What the cloud answers: the manifest, the plan that makes the file from the base, and the file if asked for."""

    manifest: Manifest
    plan: bytes
    model: bytes | memoryview | None

    def to_bytes(self) -> bytes:
        """Encode as msgpack."""
        return pack({"manifest": self.manifest.to_fields(), "plan": self.plan, "model": self.model})

    @classmethod
    def from_bytes(cls, content: bytes) -> PersonalizeAnswer:
        """Decode msgpack, or raise MessageError naming the field that is wrong."""
        fields = unpack(content)
        where = "answer"
        model = fields.get("model")
        return cls(
            manifest=Manifest.from_fields(field(fields, "manifest", dict, where)),
            plan=field(fields, "plan", bytes, where),
            model=None if model is None else field(fields, "model", bytes, where),
        )


def _check_version(fields: Mapping[str, Any], where: str) -> None:
    version = field(fields, "version", int, where)
    if version != WIRE_VERSION:
        raise MessageError(
            f"{where}: wire version {version} is not understood here (this is version {WIRE_VERSION}): "
            "update the older side"
        )
