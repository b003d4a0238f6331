"""The contract between device and cloud: what a device asks and what it is answered, and how both become bytes.

Messages are small frozen dataclasses. On the wire they are msgpack maps (or the same maps in JSON); every reader
checks every field and names the one that is wrong. Unknown fields are ignored, so that an older reader understands a
newer writer; a change that an older reader must not misread raises `WIRE_VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge_runtime.certificate import Certificate
from edge_runtime.digests import is_digest
from edge_runtime.errors import MessageError
from edge_runtime.messages import field
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MSGPACK",
    "WIRE_VERSION",
    "ClassFigures",
    "Manifest",
    "PersonalizeRequest",
    "PlanFile",
    "SelfTest",
]

WIRE_VERSION = 2
MSGPACK = "application/vnd.msgpack"

_WHOLE_MAX: Final = 2**63 - 1
# Of a self-test: what a device is ready to run before it takes a model.
_SELF_TEST_IMAGES_MAX: Final = 64
_SELF_TEST_CLASSES_MAX: Final = 5


def _usage(value: Mapping[Any, Any], where: str) -> dict[str, float]:
    return {str(name): field(value, name, float, f"{where}: usage") for name in value}


def _wish(fields: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    return None if fields.get(name) is None else field(fields, name, kind, where)


def _digest(fields: Mapping[str, Any], name: str, where: str) -> str:
    """Return a digest, which names files and addresses and so may hold nothing else."""
    value = str(field(fields, name, str, where))
    if not is_digest(value):
        raise MessageError(f"{where}: field '{name}' is {value!r:.80}, expected a sha256 as 64 lower-case hex digits")
    return value


def _whole(fields: Mapping[str, Any], name: str, where: str) -> int:
    value = int(field(fields, name, int, where))
    if not 0 <= value <= _WHOLE_MAX:
        raise MessageError(f"{where}: field '{name}' is {value}, expected 0 to {_WHOLE_MAX}")
    return value


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
    rolled_back
        One line on the last cut that the device took back, since its last request: which, and why.
    """

    base: str
    usage: dict[str, float]
    device: str = "device"
    variant: str | None = None
    epsilon: float | None = None
    guarantee: str | None = None
    delta: float | None = None
    rolled_back: str | None = None

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
            "rolled_back": self.rolled_back,
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
            rolled_back=_wish(fields, "rolled_back", str, where),
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
class PlanFile:
    """The plan that makes a cut from its base: sha256 and length of its encoded form."""

    digest: str
    bytes: int

    def to_fields(self) -> dict[str, Any]:
        """Return the message as plain values."""
        return {"digest": self.digest, "bytes": self.bytes}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], where: str) -> PlanFile:
        """Read the message, or raise MessageError naming the field that is wrong."""
        return cls(digest=_digest(fields, "digest", where), bytes=_whole(fields, "bytes", where))


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a model answers to images that everybody can make: a device tries it before it takes the model.

    Attributes
    ----------
    seed
        What the images are made from (`edge_runtime.self_test`).
    expected
        For each image the most probable classes, at most 5, as (output index, probability), best first.
    tolerance
        By how much each probability may differ.
    """

    seed: int
    expected: tuple[tuple[tuple[int, float], ...], ...]
    tolerance: float

    def to_fields(self) -> dict[str, Any]:
        """Return the message as plain values."""
        return {
            "seed": self.seed,
            "expected": [[[index, probability] for index, probability in image] for image in self.expected],
            "tolerance": self.tolerance,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], where: str) -> SelfTest:
        """Read the message, or raise MessageError naming the field that is wrong."""
        images = field(fields, "expected", list, where)
        if len(images) > _SELF_TEST_IMAGES_MAX:
            raise MessageError(f"{where}: field 'expected' has {len(images)} images, at most {_SELF_TEST_IMAGES_MAX}")
        return cls(
            seed=_whole(fields, "seed", where),
            expected=tuple(_top_classes(image, f"{where}: image {number}") for number, image in enumerate(images)),
            tolerance=field(fields, "tolerance", float, where),
        )


def _top_classes(image: Any, where: str) -> tuple[tuple[int, float], ...]:
    if not isinstance(image, list) or not 0 < len(image) <= _SELF_TEST_CLASSES_MAX:
        raise MessageError(f"{where}: is no list of 1 to {_SELF_TEST_CLASSES_MAX} classes with their probabilities")
    classes = []
    for pair in image:
        if not isinstance(pair, list) or len(pair) != 2:
            raise MessageError(f"{where}: holds {pair!r:.40}, expected an output's index and its probability")
        named = dict(zip(("index", "probability"), pair, strict=True))
        classes.append((_whole(named, "index", where), float(field(named, "probability", float, where))))
    return tuple(classes)


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
    serial
        Rises with everything that the service signs: microseconds since 1970 when it was signed, and more than the last
        one. 0 of what was never signed.
    plan
        What makes the file from the base; None for a base model.
    self_test
        What the file answers to test images; None where it was not tried.
    temperature
        What the logarithms of a base's probabilities are divided by to be right as such: above 1 where it is too sure.
        1 of a cut.
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
    serial: int = 0
    plan: PlanFile | None = None
    self_test: SelfTest | None = None
    temperature: float = 1.0

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
            "serial": self.serial,
            "plan": None if self.plan is None else self.plan.to_fields(),
            "self_test": None if self.self_test is None else self.self_test.to_fields(),
            "temperature": self.temperature,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Manifest:
        """Read the message, or raise MessageError naming the field that is wrong."""
        where = "manifest"
        _check_version(fields, where)
        per_class = field(fields, "per_class", dict, where)
        return cls(
            digest=_digest(fields, "digest", where),
            bytes=_whole(fields, "bytes", where),
            base=_digest(fields, "base", where),
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
            serial=_whole(fields, "serial", where),
            plan=None
            if fields.get("plan") is None
            else PlanFile.from_fields(field(fields, "plan", dict, where), f"{where}: plan"),
            self_test=None
            if fields.get("self_test") is None
            else SelfTest.from_fields(field(fields, "self_test", dict, where), f"{where}: self_test"),
            temperature=_temperature(fields, where),
        )


def _temperature(fields: Mapping[str, Any], where: str) -> float:
    value = float(field(fields, "temperature", float, where))
    if not 0.01 <= value <= 100.0:
        raise MessageError(f"{where}: field 'temperature' is {value:g}, expected 0.01 to 100")
    return value


def _check_version(fields: Mapping[str, Any], where: str) -> None:
    version = field(fields, "version", int, where)
    if version != WIRE_VERSION:
        raise MessageError(
            f"{where}: wire version {version} is not understood here (this is version {WIRE_VERSION}): "
            "update the older side"
        )
