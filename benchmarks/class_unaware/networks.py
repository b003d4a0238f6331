"""Makes the networks that Table II begins with: references, pruned for nobody in particular, then fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.class_unaware.prune import kept_counts, prune_channels
from benchmarks.networks.training import Recipe, measured_top1, train
from cloud_pruner.images import ImageSet, split_per_class
from cloud_pruner.progress import no_progress

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.class_unaware.prune import Criterion
    from benchmarks.networks.reference import Reference
    from cloud_pruner.progress import Progress

__all__ = ["Pruned", "Tuning", "make_pruned"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a pruned network is made.

    Attributes
    ----------
    sampled
        Training images a class that channels are chosen on.
    images
        Training images a class that it is fine-tuned on; None: all.
    epochs
        Passes over them.
    rate
        The highest learning rate: below that of a training from scratch.
    """

    sampled: int
    images: int | None
    epochs: int
    rate: float = 2e-4


@dataclass(frozen=True, slots=True)
class Pruned:
    """What came of it; accuracies are top-1 on the unseen images.

    Attributes
    ----------
    parameters, base_parameters
        Of the pruned network, and of the one it was made of.
    base_top1, cut_top1, top1
        Of the original, of the pruned network before fine-tuning, and after it.
    """

    parameters: int
    base_parameters: int
    base_top1: float
    cut_top1: float
    top1: float


def make_pruned(
    reference: Reference,
    criterion: Criterion,
    share: float,
    path: Path,
    tuning: Tuning,
    progress: Progress = no_progress,
) -> Pruned:
    """Prune a reference network to a share of its parameters, fine-tune it and save it.

    Parameters
    ----------
    reference
        The network; a chain of layers.
    criterion
        How channels are chosen.
    share
        Parameters that stay, of the whole network's.
    path
        A `.keras` file.
    progress
        Called with what is being done, how much is done, and of how much.

    Raises
    ------
    ConversionError
        The network is no chain of layers.
    ValueError
        `share` is out of reach.
    """
    network, preprocessing = reference.build(), reference.preprocessing
    trained_on, unseen = reference.train_images(), reference.unseen_images()
    sampled = preprocessing.apply(_some(trained_on, tuning.sampled).pixels)
    pruned = prune_channels(network, sampled, kept_counts(network, share), criterion, progress=progress)
    progress("fine-tuning", 0, 1)
    cut_top1 = measured_top1(pruned, unseen, preprocessing)
    images = trained_on if tuning.images is None else _some(trained_on, tuning.images)
    recipe = Recipe(tuning.epochs, batch=min(128, len(images.labels)), rate=tuning.rate)
    train(pruned, images, preprocessing, recipe, tell=lambda _: None)
    path.parent.mkdir(parents=True, exist_ok=True)
    pruned.save(path)
    return Pruned(
        parameters=_parameters(pruned),
        base_parameters=_parameters(network),
        base_top1=measured_top1(network, unseen, preprocessing),
        cut_top1=cut_top1,
        top1=measured_top1(pruned, unseen, preprocessing),
    )


def _some(images: ImageSet, count: int) -> ImageSet:
    fewest = int(np.bincount(images.labels, minlength=len(images.classes)).min())
    rows = split_per_class(images.labels, {"some": min(count, fewest)}, images.classes)["some"]
    return ImageSet(images.pixels[rows], images.labels[rows], images.classes)


def _parameters(network: Any) -> int:
    return int(network.count_params())
