"""Trains a classifier from scratch, on whatever Keras runs on: TensorFlow or JAX, CPU or accelerator.

The recipe is the usual one for small images: random crops of the image padded by an eighth, mirrored half of the time;
AdamW with a rate that rises over the first twentieth of the steps and falls along a cosine to nothing; smoothed labels.
Images, crops and order follow from the seed and the epoch alone, so that training that was broken off and goes on from
its last checkpoint ends at the same weights.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_pruner.errors import PrunerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_pruner.images import ImageSet
    from edge_runtime.preprocessing import Preprocessing

__all__ = ["Recipe", "augmented", "measured_top1", "train"]

_SMOOTHING = 0.1
_WEIGHT_DECAY = 0.05  # times the rate, at each step; of kernels alone
_NOT_DECAYED = ("bias", "gamma", "beta")
_WARM_UP = 0.05  # of the steps
_STATE = "state.weights.h5"
_SETTINGS = "recipe.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes
    ----------
    epochs
        Passes over the images.
    batch
        Images a step; the last few in an epoch's order that do not fill one are left out of that epoch.
    rate
        The highest learning rate.
    seed
        Of the order and of the crops.
    """

    epochs: int
    batch: int = 128
    rate: float = 1e-3
    seed: int = 0


def train(
    model: Any,
    images: ImageSet,
    preprocessing: Preprocessing,
    recipe: Recipe,
    checkpoint: Path | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Train a Keras model that gives logits; its weights change in place.

    Parameters
    ----------
    model
        As it is built; seed Keras with `recipe.seed` before that, for the same weights each time.
    images
        What to train on.
    preprocessing
        How pixels become the model's inputs; must fit `images`.
    recipe
        How to train.
    checkpoint
        Folder for the state after each epoch; training goes on from there where it has one.
    tell
        Told a line after each epoch.

    Raises
    ------
    PrunerError
        The checkpoint is of a training with other settings, or there are fewer images than a batch has.
    """
    import keras  # noqa: PLC0415 - seconds to import, and this module is imported for its names too

    steps = len(images.labels) // recipe.batch
    if not steps:
        raise PrunerError(f"there are {len(images.labels)} images, fewer than a batch: take a batch below that")
    _compile(model, recipe, steps)
    if checkpoint is not None:
        _open(checkpoint, model, recipe, len(images.labels))
    for epoch in range(int(model.optimizer.iterations) // steps, recipe.epochs):
        begin = time.monotonic()
        batches = _batches(keras, images, preprocessing, recipe, epoch)
        history = model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0).history
        if checkpoint is not None:
            # Beside it first: a state that is half written when the machine stops must not take the last one's place.
            written = checkpoint / f"new-{_STATE}"
            model.save_weights(written)
            written.replace(checkpoint / _STATE)
        tell(
            f"epoch {epoch + 1} of {recipe.epochs}: loss {history['loss'][0]:.3f}, "
            f"top-1 {history['accuracy'][0]:.1%} while training, {time.monotonic() - begin:.0f} s"
        )


def augmented(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return each image cut at random from itself with a border of an eighth of its side (black), mirrored at random.

    Parameters
    ----------
    pixels
        `(n, height, width, channels)` uint8.
    random
        Where chance comes from.
    """
    count, height, width, _ = pixels.shape
    border = max(height // 8, 1)
    padded = np.pad(pixels, ((0, 0), (border, border), (border, border), (0, 0)))
    rows = random.integers(0, 2 * border + 1, count)[:, None, None] + np.arange(height)[None, :, None]
    forwards = np.arange(width)
    mirrored = random.uniform(size=(count, 1, 1)) < 0.5
    columns = np.where(mirrored, forwards[::-1], forwards) + random.integers(0, 2 * border + 1, count)[:, None, None]
    result: NDArray[np.uint8] = padded[np.arange(count)[:, None, None], rows, columns]
    return result


def measured_top1(model: Any, images: ImageSet, preprocessing: Preprocessing, batch: int = 500) -> float:
    """Return the share of `images` whose class has the largest of the model's outputs."""
    import keras  # noqa: PLC0415 - as above

    right = 0
    for start in range(0, len(images.labels), batch):
        inputs = preprocessing.apply(images.pixels[start : start + batch])
        outputs = keras.ops.convert_to_numpy(model(inputs, training=False))
        right += int(np.sum(outputs.argmax(axis=1) == images.labels[start : start + batch]))
    return right / len(images.labels)


def _compile(model: Any, recipe: Recipe, steps: int) -> None:
    import keras  # noqa: PLC0415 - as above

    total = recipe.epochs * steps
    warm_up = max(round(_WARM_UP * total), 1)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.rate / 100, max(total - warm_up, 1), warmup_target=recipe.rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=list(_NOT_DECAYED))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=_SMOOTHING)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=keras.backend.backend() != "tensorflow")
    optimizer.build(model.trainable_variables)


def _open(checkpoint: Path, model: Any, recipe: Recipe, images: int) -> None:
    """Begin a checkpoint, or load the state of one that was made with the same settings."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    shapes = [list(weight.shape) for weight in model.weights]
    settings = json.dumps({**asdict(recipe), "images": images, "weights": shapes})
    written = checkpoint / _SETTINGS
    if not written.exists():
        written.write_text(settings)
    elif written.read_text() != settings:
        raise PrunerError(f"{checkpoint}: holds a training with other settings: name another folder or remove this one")
    if (checkpoint / _STATE).exists():
        model.load_weights(checkpoint / _STATE)


def _batches(keras: Any, images: ImageSet, preprocessing: Preprocessing, recipe: Recipe, epoch: int) -> Any:
    """Return the batches of an epoch, each the same whoever asks for it and when."""
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(images.labels))
    targets = np.eye(len(images.classes), dtype=np.float32)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc] # keras ships no types
        def __len__(self) -> int:
            return len(order) // recipe.batch

        def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            rows = order[index * recipe.batch : (index + 1) * recipe.batch]
            random = np.random.default_rng([recipe.seed, epoch, index])
            return preprocessing.apply(augmented(images.pixels[rows], random)), targets[images.labels[rows]]

    return Batches()
