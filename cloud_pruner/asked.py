"""A request in the terms of one profile: which of its classes, by which method, and under which key its cut is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from cache import exact_key, plan_key
from cloud_pruner.methods import method_named
from cloud_pruner.requests import checked_usage

if TYPE_CHECKING:
    from typing_extensions import Self

    from cloud_pruner.fold_fitting import Folding
    from cloud_pruner.methods import Method
    from cloud_pruner.profile import Profile
    from cloud_pruner.requests import PruneRequest
    from cloud_pruner.variants import Usage

__all__ = ["Asked"]

# Of what is remembered: entries of other versions are never met.
_ENTRY_VERSION: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request, as a profile understands it.

    Attributes
    ----------
    request
        As it came.
    usage
        Labels and weights of the user's classes.
    names
        Of these classes, in the order of their labels.
    method
        What the request's variant is.
    folding
        The request's, or the method's own.
    settings
        Digest of all but the user that the cut depends on.
    """

    request: PruneRequest
    usage: Usage
    names: tuple[str, ...]
    method: Method
    folding: Folding
    settings: str

    @classmethod
    def of(cls, profile: Profile, request: PruneRequest) -> Self:
        """Bring a request to the profile's terms.

        Raises
        ------
        RequestError
            It names classes that the model does not have, or weights that make no sense.
        """
        usage = checked_usage(request.usage, profile.classes)
        method = method_named(request.variant)
        folding = method.folding if request.folding is None else cast("Folding", request.folding)
        certified = request.guarantee == "certified"
        settings = exact_key(
            entry=_ENTRY_VERSION,
            base=profile.base.digest,
            profile=profile.digest,
            variant=method.name,
            folding=folding,
            objective=request.objective if method.variant is None else None,
            epsilon=request.epsilon,
            guarantee=request.guarantee,
            delta=request.delta if certified else None,
            test=request.test if certified else None,
        )
        names = tuple(profile.classes[label] for label in usage.labels.tolist())
        return cls(request, usage, names, method, folding, settings)

    @property
    def is_certified(self) -> bool:
        """Whether the cut has to be shown to keep within epsilon."""
        return self.request.guarantee == "certified"

    @property
    def key(self) -> str:
        """What the cut is kept under: without weights where the method does not look at them."""
        weights = self.usage.weights.tolist() if self.method.weighted else ()
        return plan_key(self.settings, self.usage.labels.tolist(), weights)

    @property
    def weights(self) -> dict[str, float]:
        """How often each class comes up, by name."""
        return dict(zip(self.names, self.usage.weights.tolist(), strict=True))
