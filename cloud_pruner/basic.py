"""The table of variant B (CAP'NN, Algorithm 1): for each class alone, which units it can do without.

The rules
---------
1. Layers are visited in order of computation. For each class i, what is fixed for i in earlier layers stays fixed.
2. At threshold T, class i goes without the units n of the layer whose firing rate F(n, i) is below T.
3. T falls from `start` by `step`; the first is taken, for all classes together, at which every class i loses at most
   epsilon on its own *select* images with its own units gone. At T = 0 nothing is pruned.
4. A class whose units would all go, or that would leave a part of the network without channels, has lost too much: such
   a network cannot be made (the paper does not say).

A trial ends with the first class that fails, and that class goes first in the next. A class whose units are those of
an earlier trial, or none, is not measured again.

Saved beside the profile
------------------------
The table belongs to a profile and three numbers, and is kept in a file in the profile's folder that is named for them:
masks as bits, thresholds, and a digest of these and of what they belong to. A file that is damaged is made again; where
the folder cannot be written the table lasts as long as the opened profile.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import numpy as np

from cloud_pruner.judge import losses_allowed
from cloud_pruner.progress import no_progress
from edge_runtime.digests import digest_of
from edge_runtime.durable import write_durably
from edge_runtime.errors import PlanError
from edge_runtime.flatmodel import LayerCut
from edge_runtime.interpreter import LoadedModel

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_pruner.profile import LayerProfile, Profile
    from cloud_pruner.progress import Progress

__all__ = ["BasicTable", "basic_table"]


@dataclass(frozen=True, slots=True, eq=False)
class BasicTable:
    """What Algorithm 1 finds.

    Attributes
    ----------
    thresholds
        The accepted T of each layer, in the profile's order; 0.0 where nothing is pruned.
    pruned
        `(units, classes) bool` for each layer: whether the class can do without the unit (the paper's P).
    """

    thresholds: tuple[float, ...]
    pruned: tuple[NDArray[np.bool_], ...]


def basic_table(
    profile: Profile, epsilon: float, start: float = 0.4, step: float = 0.025, progress: Progress = no_progress
) -> BasicTable:
    """Return the table of `profile`: from memory, from the profile's folder, or found now and saved there.

    Parameters
    ----------
    epsilon
        Top-1 accuracy that a class may lose.
    start, step
        First threshold and decrement.
    progress
        Called with the layer, layers done and layers in all.

    Raises
    ------
    ModelFileError
        The interpreter fails.
    """
    of_profile = _TABLES.setdefault(profile, {})
    belongs = f"{profile.digest} epsilon {epsilon!r} start {start!r} step {step!r}"
    if belongs not in of_profile:
        path = profile.folder / f"basic_{digest_of(belongs.encode())[:16]}.npz"
        table = _load(path, belongs, profile)
        if table is None:
            table = _find(profile, epsilon, start, step, progress)
            # Read-only or full: it is in memory.
            with contextlib.suppress(OSError):
                write_durably(path, _content(table, belongs))
        of_profile[belongs] = table
    return of_profile[belongs]


_TABLES: Final[WeakKeyDictionary[Profile, dict[str, BasicTable]]] = WeakKeyDictionary()


def _find(profile: Profile, epsilon: float, start: float, step: float, progress: Progress) -> BasicTable:
    classes = [_ClassTrial(profile, label, epsilon) for label in range(len(profile.classes))]
    fragile_first = list(classes)
    thresholds = []
    for done, layer in enumerate(profile.layers):
        progress(layer.name, done, len(profile.layers))
        for trial in classes:
            trial.begin(layer)
        threshold = 0.0
        for number in range(round(start / step), 0, -1):
            failing = next((trial for trial in fragile_first if not trial.passes(step * number)), None)
            if failing is None:
                threshold = step * number
                break
            fragile_first.remove(failing)
            fragile_first.insert(0, failing)
        for trial in classes:
            trial.fix(threshold)
        thresholds.append(threshold)
    progress("done", len(profile.layers), len(profile.layers))
    pruned = (
        _below(layer.firing_rates, threshold) for layer, threshold in zip(profile.layers, thresholds, strict=True)
    )
    return BasicTable(tuple(thresholds), tuple(pruned))


def _below(rates: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Return where a rate is below the threshold, as float32: as float64, 0.35 stored as float32 is below 0.35."""
    return np.asarray(rates) < np.float32(threshold)


class _ClassTrial:
    """Trials of one class: its images, what is fixed for it, and what was measured in the layer that is visited."""

    def __init__(self, profile: Profile, label: int, epsilon: float) -> None:
        split = profile.splits["select"]
        rows = split.rows(label)
        self._profile, self._label = profile, label
        self._inputs = np.ascontiguousarray(split.activations[rows])
        # At most epsilon is allowed: the smallest number of right answers that is still enough.
        correct = int((split.predictions[rows] == label).sum())
        self._needed = correct - losses_allowed(epsilon, len(self._inputs))
        self._fixed: list[LayerCut] = []

    def begin(self, layer: LayerProfile) -> None:
        """Visit `layer`."""
        self._layer = layer
        self._rates = np.array(layer.firing_rates[:, self._label])
        # Flagged sets are nested: equal numbers mean equal sets. Without new ones it is what was accepted before.
        self._measured = {0: True}

    def passes(self, threshold: float) -> bool:
        """Whether the class loses at most epsilon at this threshold."""
        flagged = int(_below(self._rates, threshold).sum())
        if flagged not in self._measured:
            self._measured[flagged] = flagged < self._layer.units and self._within([*self._fixed, self._cut(threshold)])
        return self._measured[flagged]

    def fix(self, threshold: float) -> None:
        """Let the class go without the units below `threshold` from now on."""
        if _below(self._rates, threshold).any():
            self._fixed.append(self._cut(threshold))

    def _cut(self, threshold: float) -> LayerCut:
        return LayerCut(self._layer.tensor, self._layer.units, np.flatnonzero(~_below(self._rates, threshold)))

    def _within(self, cuts: list[LayerCut]) -> bool:
        suffix = self._profile.suffix
        try:
            content = suffix.emit(cuts)
        except PlanError:
            return False  # a part of the network would be left without channels
        batch = max(len(self._inputs), 1) if suffix.any_batch else 1
        answers = LoadedModel(content, batch=batch, name="candidate").run(self._inputs)[0].argmax(axis=1)
        return int((answers == self._label).sum()) >= self._needed


def _content(table: BasicTable, belongs: str) -> bytes:
    """Return the table as the bytes of an .npz file."""
    stream = io.BytesIO()
    bits = np.concatenate([np.packbits(mask) for mask in table.pruned])
    thresholds = np.array(table.thresholds)
    np.savez(stream, thresholds=thresholds, bits=bits, digest=np.array(_digest(belongs, thresholds, bits)))
    return stream.getvalue()


def _load(path: Path, belongs: str, profile: Profile) -> BasicTable | None:
    """Read a table; None where there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            thresholds, bits, digest = arrays["thresholds"], arrays["bits"], str(arrays["digest"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if digest != _digest(belongs, thresholds, bits):
        return None
    pruned, at = [], 0
    for layer in profile.layers:
        shape = (layer.units, len(profile.classes))
        size = -(-shape[0] * shape[1] // 8)
        pruned.append(np.unpackbits(bits[at : at + size], count=shape[0] * shape[1]).reshape(shape).astype(bool))
        at += size
    return BasicTable(tuple(thresholds.tolist()), tuple(pruned))


def _digest(belongs: str, thresholds: NDArray[np.float64], bits: NDArray[np.uint8]) -> str:
    return digest_of(b"\0".join([belongs.encode(), thresholds.tobytes(), bits.tobytes()]))
