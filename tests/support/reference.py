"""Obviously right counterparts of slicing and folding: the whole network, with zeros where units were pruned."""

from __future__ import annotations

import numpy as np

from edge_runtime.flatmodel import BaseModel, read_graph


def masked_network(base: BaseModel, cuts) -> bytes:
    """Return the base with the pruned units masked: what reads them multiplies by zero, and takes up the folds."""
    content = bytearray(bytes(base.content))
    graph = read_graph(content)
    for cut in cuts:
        group = base.channels.groups[base.channels.group_of(cut.tensor)]
        for consumer in group.consumers:
            weights = _writable(graph.tensors[consumer.weight])
            by_unit = weights.reshape(*weights.shape[:-1], -1, cut.units)
            for fold in cut.folds:
                if fold.weight == consumer.weight:
                    _fold(by_unit, _writable(graph.tensors[consumer.bias]), cut, fold)
            by_unit[..., cut.pruned] = 0.0
    return bytes(content)


def _fold(by_unit, bias, cut, fold):
    pruned = by_unit[..., cut.pruned].astype(np.float64)
    offsets = fold.offsets.astype(np.float64) * 2.0**fold.offset_exponent
    # The bias takes W_P v at every position of the kernel, or of the flattened map.
    bias += (pruned @ offsets).reshape(len(bias), -1).sum(axis=1).astype(np.float32)
    if fold.is_linear:
        coefficients = fold.coefficients.astype(np.float64) * 2.0**fold.coefficient_exponent
        by_unit[..., cut.kept] += (pruned @ coefficients).astype(np.float32)


def _writable(tensor):
    values = tensor.data
    assert values.flags.writeable
    return values
