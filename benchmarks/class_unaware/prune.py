"""Prunes a whole network, convolution by convolution, to a share of its parameters; fine-tuning comes after it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from benchmarks.class_unaware.chain import chain, parameters_with, windows, with_channels
from benchmarks.class_unaware.reconstruction import WindowMoments, lasso_channels, refitted
from benchmarks.class_unaware.thinet import greedy_channels, rescaling

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["CRITERIA", "Criterion", "kept_counts", "prune_channels"]

Criterion: TypeAlias = Literal["thinet", "reconstruction"]
CRITERIA: Final[tuple[Criterion, ...]] = get_args(Criterion)

_PLACES: Final = 10  # of each image and layer, as in both papers
_BATCH: Final = 100


def kept_counts(network: Any, share: float) -> dict[str, int]:
    """Return how many filters each convolution keeps so that the network keeps `share` of its parameters.

    The same part of every convolution whose output only a convolution reads; the largest that stays within `share`.

    Raises
    ------
    ValueError
        A single filter in each would still be more.
    """
    pairs = _pairs(network)
    whole = parameters_with(network, {})
    parts = np.linspace(1.0, 0.0, 401)
    for part in parts.tolist():
        counts = {first.name: max(round(part * first.filters), 1) for first, _ in pairs}
        if parameters_with(network, counts) <= share * whole:
            return counts
    raise ValueError(
        f"{network.name}: {share:.0%} of its parameters are out of reach: its dense layers alone have more"
    )


def prune_channels(
    network: Any,
    inputs: NDArray[np.float32],
    counts: dict[str, int],
    criterion: Criterion,
    *,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Any:
    """Return a smaller network, not fine-tuned.

    Parameters
    ----------
    network
        A sequential Keras model.
    inputs
        Preprocessed images `(n, height, width, channels) float32` that places are sampled from.
    counts
        Name of a convolution -> filters that stay, in order of computation.
    criterion
        "thinet", where the network as pruned so far is what the next layer should do; or "reconstruction", where the
        original is.
    seed
        Of the places.

    Returns
    -------
    keras.Sequential
        Layers have the names of the old ones.
    """
    pruned, rng = with_channels(network, {}), np.random.default_rng(seed)
    following = {first.name: second.name for first, second in _pairs(network)}
    for number, (name, count) in enumerate(counts.items()):
        progress(name, number, len(counts))
        reader = pruned.get_layer(following[name])
        if count >= pruned.get_layer(name).filters:
            continue
        places = _places(rng, len(inputs), reader.output.shape)
        read = windows(_read(pruned, reader.name, inputs), reader, places)
        kernel = reader.get_weights()[0]
        flat = kernel.reshape(-1, *kernel.shape[-2:])
        if criterion == "thinet":
            # One filter of the next layer for each place, at random.
            of_filter = flat[:, :, rng.integers(flat.shape[-1], size=len(places))]
            contributions = np.einsum("ptc,tcp->pc", read, of_filter, optimize=True)
            kept = greedy_channels(contributions, count)
            weights = flat[:, kept] * rescaling(contributions, kept)[:, np.newaxis]
        else:
            # What the original makes of its own channels there, before bias and activation.
            original = network.get_layer(reader.name)
            wanted = windows(_read(network, reader.name, inputs), original, places).reshape(len(places), -1)
            wanted = wanted @ original.get_weights()[0].reshape(wanted.shape[1], -1)
            moments = WindowMoments.of(read, wanted)
            kept = lasso_channels(moments, flat, count)
            weights = refitted(moments, kept)
        pruned = with_channels(pruned, {name: kept})
        reader = pruned.get_layer(following[name])
        reader.set_weights([weights.reshape(reader.kernel.shape).astype(np.float32), *reader.get_weights()[1:]])
    return pruned


def _pairs(network: Any) -> list[tuple[Any, Any]]:
    """Return each convolution whose output a convolution reads, and that one."""
    weighted = [layer for layer in chain(network) if type(layer).__name__ in {"Conv2D", "Dense"}]
    return [
        (first, second)
        for first, second in pairwise(weighted)
        if type(first).__name__ == type(second).__name__ == "Conv2D"
    ]


def _places(rng: np.random.Generator, images: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Draw image, row and column of places in an output `(None, height, width, channels)`."""
    count = images * min(_PLACES, shape[1] * shape[2])
    image = np.repeat(np.arange(images), count // images)
    return np.stack([image, rng.integers(shape[1], size=count), rng.integers(shape[2], size=count)], axis=1)


def _read(network: Any, name: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what layer `name` reads, `(images, height, width, channels)`; it is not the first."""
    import keras  # noqa: PLC0415 - seconds to import

    layers = network.layers
    before = layers[: [layer.name for layer in layers].index(name)]
    part = keras.Sequential([keras.Input(inputs.shape[1:]), *before])
    values: NDArray[np.float32] = part.predict(inputs, batch_size=_BATCH, verbose=0)
    return values
