"""Users who meet known classes in known shares: what a device's monitor is told of them, image by image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.observation import Observation
from edge_runtime.preprocessing import Preprocessing
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_runtime.monitor import UsageMonitor

BASE, CUT = "ba5e" * 16, "c0de" * 16


def base_manifest(classes: int, temperature: float = 1.0, digest: str = BASE) -> Manifest:
    return Manifest(
        digest=digest,
        bytes=1,
        base=digest,
        profile="",
        classes=tuple(f"class {number}" for number in range(classes)),
        preprocessing=Preprocessing(8, 8, "grey"),
        usage={},
        variant="none",
        epsilon=0.0,
        guarantee="none",
        relative_size=1.0,
        parameters=1,
        per_class={},
        cache_tier="none",
        temperature=temperature,
    )


def cut_manifest(base: Manifest, usage: Mapping[str, float], variant: str = "L") -> Manifest:
    return replace(base, digest=CUT, base=base.digest, usage=dict(usage), variant=variant, temperature=1.0)


@dataclass
class Population:
    """Images, as the probabilities `(images, classes)` that a base gives them, with the classes that they are of."""

    probabilities: NDArray[np.float32]
    labels: NDArray[np.integer]

    @classmethod
    def synthetic(cls, rng: np.random.Generator, classes: int = 20, images: int = 200) -> Population:
        """Of a base that is right on most images, and says by its probabilities how likely that is."""
        labels = np.repeat(np.arange(classes), images)
        logits = rng.normal(size=(len(labels), classes))
        logits[np.arange(len(labels)), labels] += 3.0
        # For Gaussian logits with such a shift, three times the logit is what calibration asks for.
        values = np.exp(3.0 * (logits - logits.max(axis=1, keepdims=True)))
        return cls((values / values.sum(axis=1, keepdims=True)).astype(np.float32), labels)

    def draw(self, rng: np.random.Generator, usage: Mapping[int, float], images: int) -> NDArray[np.int64]:
        """Return which images a user meets whose classes come up as in `usage`."""
        labels = rng.choice(list(usage), images, p=np.array(list(usage.values())) / sum(usage.values()))
        rows = {label: np.flatnonzero(self.labels == label) for label in usage}
        return np.array([rng.choice(rows[label]) for label in labels], dtype=np.int64)


class SimulatedDevice:
    """A device that gets each cut it asks for at once, and audits one image in `audit_every`, at random."""

    def __init__(
        self,
        monitor: UsageMonitor,
        base: Manifest,
        population: Population,
        rng: np.random.Generator,
        audit_every: int = 5,
    ) -> None:
        self.monitor, self.base, self.population = monitor, base, population
        self.rng, self.audit_every = rng, audit_every
        self.cut: Manifest | None = None
        self.images = 0
        monitor.serve(base, None)

    @property
    def classes(self) -> set[int]:
        """The classes that the cut is for."""
        return set() if self.cut is None else {self.base.classes.index(name) for name in self.cut.usage}

    def meet(self, usage: Mapping[int, float], images: int) -> list[tuple[int, set[int]]]:
        """Let a user show images; return each request: after how many images, and for which classes."""
        requests = []
        for number, row in enumerate(self.population.draw(self.rng, usage, images)):
            audited = self.cut is not None and self.rng.random() * self.audit_every < 1
            by_base = self.cut is None or audited
            model = self.base if by_base else self.cut
            assert model is not None
            probabilities = self.population.probabilities[row]
            if self.monitor.observe(Observation(model, 0, 1.0, 0.001, audited, probabilities)):
                asked = self.monitor.decide()
                if asked is not None:
                    self.cut = cut_manifest(self.base, asked)
                    self.monitor.serve(self.base, self.cut)
                    requests.append((number + 1, self.classes))
        return requests
