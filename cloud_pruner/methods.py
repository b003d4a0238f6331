"""The ways to prune that can be asked for by name: CAP'NN's variants, our own, and baselines to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloud_pruner.baselines import BASELINES
from cloud_pruner.basic import basic_table
from cloud_pruner.errors import RequestError
from cloud_pruner.variants import MISEFFECTUAL_RULES, Basic, Miseffectual, Weighted

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from cloud_pruner.fold_fitting import Folding
    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress
    from cloud_pruner.variants import Variant

    VariantMaker: TypeAlias = Callable[[Profile, float, Progress], Variant]

__all__ = ["METHODS", "VARIANTS", "Method", "method_named"]


@dataclass(frozen=True, slots=True)
class Method:
    """One way to prune.

    Attributes
    ----------
    name, description
        What it is called, and in one line what it does.
    variant
        Makes the variant for a profile and an epsilon, for a search layer by layer; None: a search along one path
        through all layers.
    folding
        What becomes of pruned units unless a request says otherwise.
    weighted
        Whether it matters how often each class comes up.
    """

    name: str
    description: str
    variant: VariantMaker | None
    folding: Folding
    weighted: bool = True


def _basic(profile: Profile, epsilon: float, progress: Progress) -> Variant:
    basic_table(profile, epsilon, progress=progress)  # takes a while the first time
    return Basic(epsilon)


def _always(variant: Variant) -> VariantMaker:
    return lambda *_: variant


VARIANTS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method(
            "B",
            "intersection of sets found offline for each class (CAP'NN, Algorithm 1)",
            _basic,
            "none",
            weighted=False,
        ),
        Method("W", "threshold on usage-weighted firing rates (CAP'NN, Algorithm 2)", _always(Weighted()), "none"),
        *(
            Method(
                variant.name,
                f"W without units that work against a class, rule '{variant.rule}'",
                _always(variant),
                "none",
            )
            for variant in map(Miseffectual, MISEFFECTUAL_RULES)
        ),
        Method("L", "one path through all layers, with linear folds", None, "linear", weighted=False),
    )
}

METHODS: Final[dict[str, Method]] = VARIANTS | {
    name: Method(name, f"baseline: {baseline.description}", _always(baseline), baseline.folding)
    for name, baseline in BASELINES.items()
}


def method_named(name: str) -> Method:
    """Return the method, whatever the case of its name.

    Raises
    ------
    RequestError
        There is none.
    """
    by_name = {known.lower(): method for known, method in METHODS.items()}
    if name.lower() not in by_name:
        raise RequestError(f"variant '{name}' is unknown: choose one of {', '.join(METHODS)}")
    return by_name[name.lower()]
