"""The searches as they are defined, slow and plain: the whole network, masked, over all images, for every candidate.

No boundary activations, no sliced weights, no pieces, no early end, and a ridge regression as the textbook has it:
`search.Searcher` must choose the same units. Which candidates a variant gives is the subject of other tests; only W's
are written out here once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.flatmodel import Fold, LayerCut, extract
from edge_runtime.interpreter import LoadedModel
from tests.support.reference import kept_units, masked_network

if TYPE_CHECKING:
    from cloud_pruner.profile import Profile
    from cloud_pruner.variants import Usage

RIDGE = 0.02
PIXELS = 64
# Variant L: how often it fits folds, how it weighs classes anew, and how it balances outputs.
ROUNDS, EMPHASIS, HOPELESS = 2, 15.0, 0.12
STEP, SHRINKS, STEPS = 0.5, 0.93, 60


@dataclass(frozen=True)
class Plain:
    """One user's request; `images` is split -> (inputs, labels) of the user's classes, as the profile has them."""

    profile: Profile
    images: dict
    usage: Usage
    epsilon: float
    folding: str

    @property
    def labels(self):
        return self.usage.labels.tolist()

    @property
    def groups(self):
        return [self.profile.groups[layer.group] for layer in self.profile.layers]

    def by_layers(self, variant):
        """Return group number -> kept units: Algorithm 2 of CAP'NN."""
        cuts = []
        for layer in self.profile.layers:
            for kept in self._candidates(layer, variant):
                fold = self._folds_of_next if self.folding == "linear" else self._mean_folds
                trial = [*cuts, LayerCut(layer.tensor, layer.units, kept, fold(layer.group, kept, cuts))]
                if self._is_possible(trial) and max(self.losses(trial).values()) <= self.epsilon + 1e-9:
                    cuts = trial
                    break
        channels = self.profile.base.channels
        chosen = {layer.group: list(range(layer.units)) for layer in self.profile.layers}
        return chosen | {channels.group_of(cut.tensor): cut.kept.tolist() for cut in cuts}

    def along_path(self, path):
        """Return the number of the cut that variant L takes from a path: see `path_search`."""
        last = len(path.costs) - 1
        grid, share = [], path.costs[last]
        while True:
            nearest = min(range(last + 1), key=lambda number: (abs(path.costs[number] - share), number))
            if nearest > 0 and nearest not in grid:
                grid.append(nearest)
            share *= 1.5
            if share >= 1.0:
                break
        failed, taken = last + 1, 0
        for number in grid:
            if self.passes(path.kept(number)):
                taken = number
                break
            failed = number
        for _ in range(4):
            middle = (taken + failed) // 2
            if middle in {0, taken, failed}:
                break
            if self.passes(path.kept(middle)):
                taken = middle
            else:
                failed = middle
        return taken

    def passes(self, kept):
        """Whether units kept throughout the network pass, with folds fitted up to twice and outputs balanced."""
        share = dict.fromkeys(self.labels, 1.0 / len(self.labels))
        for number in range(ROUNDS):
            cuts = self.folded(kept, share)
            if not self._is_possible(cuts):
                return False
            lacking = self.lacking(cuts)
            worst = max(lacking.values())
            if worst <= 1e-9:
                return True
            if number == ROUNDS - 1 or self.folding != "linear" or worst > HOPELESS:
                return False
            mean = sum(lacking.values()) / len(lacking)
            share = {c: share[c] * np.exp(min(max(EMPHASIS * (lacking[c] - mean), -1.0), 1.0)) for c in share}
            share = {c: share[c] / sum(share.values()) for c in share}
        return False

    def lacking(self, cuts):
        """Return class -> share of its images on which right answers are missing, with outputs balanced at best."""
        inputs, labels = self.images["select"]
        base = LoadedModel(self.profile.base.content).run(inputs)[0].argmax(axis=1)
        logits = LoadedModel(masked_network(self.profile.base, cuts)).run(inputs)[0]
        if np.allclose(logits.sum(axis=1), 1.0, atol=1e-3):  # probabilities
            logits = np.log(np.maximum(logits, 1e-7))
        images = {c: labels == c for c in self.labels}

        def missing(epsilon):
            needed = {c: np.sum(base[mine] == c) - int(epsilon * mine.sum() + 1e-9) for c, mine in images.items()}
            right = {c: np.sum(logits[mine].argmax(axis=1) == c) for c, mine in images.items()}
            return {c: (needed[c] - right[c]) / mine.sum() for c, mine in images.items()}

        best, step = missing(self.epsilon), STEP
        if max(best.values()) <= 0 or self.folding != "linear":
            return best
        strict = self.epsilon - np.sqrt(self.epsilon / min(mine.sum() for mine in images.values()))
        best = found = missing(max(strict, 0.0))
        for _ in range(STEPS - 1):
            logits[:, max(found, key=found.get)] += step
            logits[:, self.labels] -= step / len(self.labels)
            step *= SHRINKS
            found = missing(max(strict, 0.0))
            if max(found.values()) < max(best.values()):
                best = found
            if max(best.values()) <= 0:
                break
        return best

    def folded(self, kept, share=None):
        """Return cuts with folds: group number -> units to keep, class -> what its images count together."""
        if self.folding != "linear":
            return [
                LayerCut(group.tensor, group.units, units, self._mean_folds(group.group, units, []))
                for group in self.groups
                if len(units := kept[group.group]) < group.units
            ]
        folds = {group.group: [] for group in self.groups}
        readers = [(group, reader) for group in self.groups for reader in group.readers]
        for group, reader in sorted(readers, key=lambda pair: pair[1].operator):
            cuts = self._all_cuts(kept, folds)
            if self._is_possible(cuts):  # or else it does not matter
                folds[group.group].append(self._fold(reader, kept[group.group], cuts, share))
        return self._all_cuts(kept, folds)

    def losses(self, cuts):
        """Return class -> lost accuracy on all its select images."""
        inputs, labels = self.images["select"]
        base = LoadedModel(self.profile.base.content).run(inputs)[0].argmax(axis=1)
        cut = LoadedModel(masked_network(self.profile.base, cuts)).run(inputs)[0].argmax(axis=1)
        mine = {label: labels == label for label in self.labels}
        return {c: float(np.mean(base[mine[c]] == c) - np.mean(cut[mine[c]] == c)) for c in self.labels}

    def _candidates(self, layer, variant):
        if variant.name == "W":
            rates = layer.firing_rates[:, self.usage.labels].astype(np.float64) @ self.usage.weights
            kept = [np.flatnonzero(rates > number * 0.025) for number in range(16, -1, -1)]
        else:
            kept = [candidate.kept for candidate in variant.candidates(self.profile, layer, self.usage)]
        return [units for units in kept if 0 < len(units) < layer.units]

    def _is_possible(self, cuts):
        """Whether every tensor is left with channels."""
        keeps = kept_units(self.profile.base, cuts)
        axes = (labels for of_tensor in self.profile.base.channels.axes.values() for labels in of_tensor.values())
        return all(keeps[labels].any() for labels in axes)

    def _all_cuts(self, kept, folds):
        return [LayerCut(g.tensor, g.units, kept[g.group], tuple(folds[g.group])) for g in self.groups]

    def _mean_folds(self, number, kept, _):
        if self.folding == "none":
            return ()
        folds = []
        for reader in self.profile.groups[number].readers:
            rows, weights = self._read(self.profile.base.content, reader), self._weights(None)
            lost = rows[:, :, ~np.isin(reader.units, kept)]
            folds.append(Fold.of(reader.weight, np.zeros((lost.shape[2], 0)), weights @ lost.mean(axis=1)))
        return tuple(folds)

    def _folds_of_next(self, number, kept, cuts):
        return tuple(self._fold(reader, kept, cuts, None) for reader in self.profile.groups[number].readers)

    def _fold(self, reader, kept, cuts, share):
        """Fit what the reader should read, the base's activations, to the kept units of the cut network."""
        stays = np.isin(reader.units, kept)
        wanted = self._read(self.profile.base.content, reader)
        there = self._read(masked_network(self.profile.base, cuts), reader)[:, :, stays]
        images, pixels, _ = wanted.shape
        weights = np.repeat(self._weights(share) / pixels, pixels)
        fitted = ridge_fit(there.reshape(images * pixels, -1), wanted.reshape(images * pixels, -1), stays, weights)
        return Fold.of(reader.weight, *fitted)

    def _read(self, content, reader):
        """Return `(images, pixels, units)`, float64, of what a layer reads of a group in the network `content`."""
        graph = self.profile.base.graph
        before = extract(bytes(content), list(graph.inputs), [reader.tensor])
        inputs, _ = self.images["profile"]
        values = np.moveaxis(LoadedModel(before).run(inputs)[0], reader.axis, -1).astype(np.float64)
        values = values.reshape(len(inputs), -1, values.shape[-1])
        step = 1
        while len(range(0, values.shape[1], step)) > PIXELS:
            step += 1
        if step > 1 and step % 2 == 0:
            step += 1
        rows = [values[:, pixel, positions] for pixel in range(0, values.shape[1], step) for positions in reader.places]
        return np.stack(rows, axis=1)

    def _weights(self, share):
        """Return `(images,)`: what each profile image counts; `share` None: all classes alike."""
        _, labels = self.images["profile"]
        share = share or dict.fromkeys(self.labels, 1.0 / len(self.labels))
        return np.array([share[label] / np.sum(labels == label) for label in labels.tolist()])


def ridge_fit(there, wanted, stays, weights):
    """Return coefficients and offsets, `(units, kept)` and `(units,)`, of what must be added to what is there.

    Least squares with rows that ask for small coefficients, instead of normal equations.

    Parameters
    ----------
    there, wanted
        `(n, kept)` and `(n, units)`: what a layer reads in the cut network, and what it reads in the base.
    stays
        `(units,) bool`: which of the units are kept.
    weights
        `(n,)`: of each row; they sum to 1.
    """
    missing = wanted.copy()
    missing[:, stays] -= there
    means, missing_means = weights @ there, weights @ missing
    root = np.sqrt(weights)[:, None]
    centred = root * (there - means)
    penalty = np.sqrt(RIDGE * np.mean(np.sum(centred**2, axis=0))) if there.shape[1] else 0.0
    left = np.vstack([centred, penalty * np.eye(there.shape[1])])
    right = np.vstack([root * (missing - missing_means), np.zeros((there.shape[1], wanted.shape[1]))])
    coefficients = np.linalg.lstsq(left, right, rcond=None)[0].T
    return coefficients, missing_means - coefficients @ means
