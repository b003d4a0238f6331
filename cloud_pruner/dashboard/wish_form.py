"""The form of the page to try a cut on: what was filled in, as text, and the request that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloud_pruner.errors import RequestError
from cloud_pruner.requests import PruneRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.datastructures import QueryParams
    from typing_extensions import Self

__all__ = ["WishForm"]

_WEIGHT: Final = "weight."
_DEFAULTS: Final = {"epsilon": "0.03", "variant": "L"}


@dataclass(frozen=True, slots=True)
class WishForm:
    """What somebody wishes for, unchecked.

    Attributes
    ----------
    model, profile
        Which of those served; empty for the first model's current one.
    weights
        Class -> weight as it was written, empty for 1; those that were chosen.
    epsilon, guarantee, variant
        As in a `PruneRequest`, as text.
    """

    model: str
    profile: str
    weights: Mapping[str, str]
    epsilon: str
    guarantee: str
    variant: str

    @classmethod
    def of(cls, query: QueryParams, guarantee: str) -> Self:
        """Read an address; `guarantee` where it names none."""
        given = {**_DEFAULTS, "guarantee": guarantee, **query}
        return cls(
            model=given.get("model", ""),
            profile=given.get("profile", ""),
            weights={name: query.get(_WEIGHT + name, "").strip() for name in query.getlist("class")},
            epsilon=given["epsilon"],
            guarantee=given["guarantee"],
            variant=given["variant"],
        )

    def choices(self, classes: Sequence[str]) -> list[tuple[str, str | None]]:
        """Return each class with its weight as it was written; None for one that was not chosen."""
        return [(name, self.weights.get(name)) for name in classes]

    def request(self) -> PruneRequest:
        """Return what is wished for.

        Raises
        ------
        RequestError
            A number is none, or a field makes no sense.
        """
        usage = {name: _number(text or "1", f"the weight of class '{name}'") for name, text in self.weights.items()}
        return PruneRequest(usage, self.variant, _number(self.epsilon, "epsilon"), self.guarantee)


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{what} is '{text:.40}': write a number, as 0.5") from None
