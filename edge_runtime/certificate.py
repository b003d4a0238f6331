"""What is promised of a cut's accuracy, in a form that travels with the file and that a device can check.

A certificate says: on `images` held-out images of each class, the cut turned `newly_wrong` of the base's right answers
wrong and `newly_right` of its wrong answers right; were the class to lose more than epsilon in truth, counts as good as
these would come up with a probability of at most `p_value`; and no p-value is above delta. `docs/guarantee.md` says
what follows from that, and under which assumptions.

Reading checks that every field is there and of its type; `Certificate.check` checks what it says, and computes the
p-values again: `P_VALUES` are the tests, for cloud and device alike. They need the counts and no images, and the
standard library's mathematics. `cloud_pruner.loss_tests` says what they have in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge_runtime.errors import MessageError
from edge_runtime.messages import field, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["P_VALUES", "Certificate", "ClassEvidence", "betting", "binomial", "binomial_tail", "clopper_pearson"]

_CERTIFICATE_VERSION: Final = 1
# More than anybody has of a class, and few enough for a device to compute with at once.
_IMAGES_MAX: Final = 1_000_000
_RATE_RESOLUTION: Final = 1e-12
# Relative. Cloud and device may use different mathematics libraries, whose last digits differ.
_P_TOLERANCE: Final = 1e-6
# What a gambler stakes, of the most that the rules allow: nothing is known of the loss, so all are tried alike.
_STAKES: Final = tuple(number / 8 for number in range(1, 9))


def binomial_tail(successes: int, trials: int, rate: float) -> float:
    """Return `P(X <= successes)` for `X ~ Binomial(trials, rate)`, exact but for rounding.

    The largest term comes from `lgamma`, its neighbours from it by ratios, until they no longer count: about the square
    root of `trials` steps.

    Parameters
    ----------
    successes
        0 or more.
    rate
        In [0, 1].
    """
    if successes >= trials or rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    peak = min(successes, int((trials + 1) * rate))
    ways = math.lgamma(trials + 1) - math.lgamma(peak + 1) - math.lgamma(trials - peak + 1)
    odds = rate / (1.0 - rate)
    total = term = 1.0
    for number in range(peak, 0, -1):  # relative to the peak: P(number - 1) from P(number)
        term *= number / ((trials - number + 1) * odds)
        total += term
        if term < 1e-18 * total:
            break
    term = 1.0
    for number in range(peak, successes):  # P(number + 1) from P(number)
        term *= (trials - number) * odds / (number + 1)
        total += term
        if term < 1e-18 * total:
            break
    return min(1.0, total * math.exp(ways + peak * math.log(rate) + (trials - peak) * math.log1p(-rate)))


def binomial(images: int, newly_wrong: int, _newly_right: int, epsilon: float) -> float:
    """Return `P(Binomial(images, epsilon) <= newly_wrong)`.

    Whoever loses epsilon or more has at least that rate of newly wrong images; newly right ones are ignored.
    """
    return binomial_tail(newly_wrong, images, epsilon)


def betting(images: int, newly_wrong: int, newly_right: int, epsilon: float) -> float:
    """Return 1 / (what a gambler has who bet on each image that the loss is below epsilon), at most 1.

    An image counts X = 1 if it is newly wrong, -1 if newly right, else 0. Staking a share s of what the rules allow
    multiplies the wealth by `1 + s (epsilon - X) / (1 - epsilon)`: never negative, and 1 or less on average if the loss
    is epsilon or more. So is the product over independent images, and the mean over several s; the p-value follows by
    Markov's inequality (Waudby-Smith & Ramdas, JRSS-B 86 (2024), arXiv 2010.09686, with a fixed mixture of constant
    bets). The running maximum of the wealth would gain a little, but depends on the order of the images.
    """
    same = images - newly_wrong - newly_right
    logs = []
    for stake in _STAKES:
        if stake == 1.0 and newly_wrong:
            continue  # all was staked, and lost
        unit = stake / (1.0 - epsilon)
        lost = newly_wrong * math.log1p(-stake) if newly_wrong else 0.0
        logs.append(lost + newly_right * math.log1p(unit * (1.0 + epsilon)) + same * math.log1p(unit * epsilon))
    most = max(logs)
    log_wealth = most + math.log(math.fsum(math.exp(log - most) for log in logs) / len(_STAKES))
    return math.exp(min(0.0, -log_wealth))


def clopper_pearson(images: int, newly_wrong: int, newly_right: int, epsilon: float) -> float:
    """Return the error at which limits of both rates, with half of it each, bound the loss by epsilon.

    Upper limit of the rate of newly wrong images minus lower limit of that of newly right ones (Clopper & Pearson,
    Biometrika 1934). The same as the largest `2 min(P(B <= newly_wrong), P(C >= newly_right))` over all pairs of rates
    that are epsilon apart.
    """

    def wrong(rate: float) -> float:
        """Return how likely so few newly wrong images are; falls with `rate`."""
        return binomial_tail(newly_wrong, images, rate)

    def right(rate: float) -> float:
        """Return how likely so many newly right images are, of rate `rate` - epsilon; rises with `rate`."""
        return binomial_tail(images - newly_right, images, 1.0 - (rate - epsilon))

    # The smaller of the two is largest where they cross.
    low, high = epsilon, epsilon if right(epsilon) >= wrong(epsilon) else 1.0
    while high - low > _RATE_RESOLUTION:
        middle = (low + high) / 2
        low, high = (low, middle) if right(middle) >= wrong(middle) else (middle, high)
    return min(1.0, 2.0 * min(wrong(low), right(high)))


P_VALUES: Final[dict[str, Callable[[int, int, int, float], float]]] = {
    "binomial": binomial,
    "betting": betting,
    "clopper-pearson": clopper_pearson,
}
"""Test -> its p-value of "the class loses epsilon or more": images, newly wrong, newly right and epsilon in (0, 1)."""


@dataclass(frozen=True, slots=True)
class ClassEvidence:
    """What was counted of one class on the certify images.

    Attributes
    ----------
    images
        How many there were.
    base_right
        Images that the base model gets right (top 1, over all outputs).
    newly_wrong
        Images of `base_right` that the cut gets wrong.
    newly_right
        Images that the cut gets right and the base does not.
    p_value
        Of "this class loses more than epsilon in truth", by the certificate's test.
    """

    images: int
    base_right: int
    newly_wrong: int
    newly_right: int
    p_value: float

    def to_fields(self) -> dict[str, Any]:
        """Return the message as plain values."""
        return {
            "images": self.images,
            "base_right": self.base_right,
            "newly_wrong": self.newly_wrong,
            "newly_right": self.newly_right,
            "p_value": self.p_value,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], where: str) -> ClassEvidence:
        """Read the message, or raise MessageError naming the field that is wrong."""
        return cls(
            images=field(fields, "images", int, where),
            base_right=field(fields, "base_right", int, where),
            newly_wrong=field(fields, "newly_wrong", int, where),
            newly_right=field(fields, "newly_right", int, where),
            p_value=field(fields, "p_value", float, where),
        )

    def check_counts(self, where: str) -> None:
        """Raise MessageError unless these are counts of the same images."""
        _check_range(self.images, 1, _IMAGES_MAX, "images", where)
        _check_range(self.base_right, 0, self.images, "base_right", where)
        _check_range(self.newly_wrong, 0, self.base_right, "newly_wrong", where)
        _check_range(self.newly_right, 0, self.images - self.base_right, "newly_right", where)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A bound on the accuracy that a cut loses.

    Attributes
    ----------
    model
        sha256 of the file that was certified and is shipped.
    certify_set
        sha256 that names the certify images.
    test
        Which test the p-values are of, one of `P_VALUES`.
    epsilon
        Top-1 accuracy that each class may lose, in (0, 1).
    delta
        Probability, over the draw of the certify images, that some class loses more all the same; in (0, 1).
    classes
        Class name -> what was counted.
    """

    model: str
    certify_set: str
    test: str
    epsilon: float
    delta: float
    classes: dict[str, ClassEvidence]

    def to_fields(self) -> dict[str, Any]:
        """Return the message as plain values; classes in the order of their names."""
        return {
            "version": _CERTIFICATE_VERSION,
            "model": self.model,
            "certify_set": self.certify_set,
            "test": self.test,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "classes": {name: self.classes[name].to_fields() for name in sorted(self.classes)},
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Certificate:
        """Read the message, or raise MessageError naming the field that is wrong."""
        where = "certificate"
        version = field(fields, "version", int, where)
        if version != _CERTIFICATE_VERSION:
            raise MessageError(
                f"{where}: version {version} is not understood here (this is version {_CERTIFICATE_VERSION}): "
                "update the older side"
            )
        classes = field(fields, "classes", dict, where)
        return cls(
            model=field(fields, "model", str, where),
            certify_set=field(fields, "certify_set", str, where),
            test=field(fields, "test", str, where),
            epsilon=field(fields, "epsilon", float, where),
            delta=field(fields, "delta", float, where),
            classes={
                str(name): ClassEvidence.from_fields(field(classes, name, dict, where), f"{where}: {name}")
                for name in classes
            },
        )

    def to_bytes(self) -> bytes:
        """Encode as msgpack: equal certificates give equal bytes, so that these can be signed."""
        return pack(self.to_fields())

    def check(self, model: str, classes: Collection[str]) -> None:
        """Check that this certifies, for all of `classes`, the file with the digest `model`.

        Who made it is for the signature over it to say, and whether epsilon and delta are small enough is for the
        device's policy.

        Raises
        ------
        MessageError
            It is of another file, leaves a class out, contradicts itself, or does not show what it claims; the message
            names the class and the field.
        """
        where = "certificate"
        if self.model != model:
            raise MessageError(f"{where}: is of model {self.model[:12]}…, not of {model[:12]}…: fetch that model's own")
        if self.test not in P_VALUES:
            raise MessageError(
                f"{where}: test '{self.test}' is unknown here (known: {', '.join(P_VALUES)}): update the device"
            )
        for name, share in (("epsilon", self.epsilon), ("delta", self.delta)):
            if not 0.0 < share < 1.0:
                raise MessageError(f"{where}: field '{name}' is {share}, expected a number between 0 and 1")
        for name in sorted(classes):
            if name not in self.classes:
                raise MessageError(f"{where}: says nothing of class '{name}': certify the cut for all its classes")
        for name, evidence in self.classes.items():
            self._check_class(evidence, f"{where}: {name}")

    def _check_class(self, evidence: ClassEvidence, where: str) -> None:
        evidence.check_counts(where)
        p_value = evidence.p_value
        if not 0.0 <= p_value <= self.delta:
            raise MessageError(f"{where}: field 'p_value' is {p_value}, expected at most delta = {self.delta}")
        computed = P_VALUES[self.test](evidence.images, evidence.newly_wrong, evidence.newly_right, self.epsilon)
        if not math.isclose(p_value, computed, rel_tol=_P_TOLERANCE, abs_tol=1e-300):
            raise MessageError(
                f"{where}: field 'p_value' is {p_value}, but its counts give {computed} by the {self.test} test: "
                "do not trust this certificate"
            )


def _check_range(value: int, low: int, high: int, name: str, where: str) -> None:
    if not low <= value <= high:
        raise MessageError(f"{where}: field '{name}' is {value}, expected {low} to {high}")
