"""How each operator of a .tflite becomes a layer of the workload.

Every operator that the reader can name has its place in one of four tables: `PRODUCTS` run on the array, `VECTOR` and
`SPECIAL` on the units behind it, `NO_COST` says why an operator takes nothing, `NOT_COSTED` why it cannot be said what
it takes. What is in none of them, as a custom operator, and what is in the last, is listed as uncosted: never guessed,
never dropped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edge_runtime.errors import ModelFileError
from edge_runtime.flatmodel.schema import ACTIVATIONS
from hwmodel.products import PRODUCTS
from hwmodel.tensors import is_stored, where
from hwmodel.vector import RECTIFIERS, SPECIAL, VECTOR, vector_layer
from hwmodel.workload import Layer, Uncosted, Workload

if TYPE_CHECKING:
    from edge_runtime.flatmodel import Graph, Operator

__all__ = ["NOT_COSTED", "NO_COST", "read_workload"]


def _for_all(names: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


NO_COST: Final[dict[str, str]] = {
    **_for_all(
        "RESHAPE SQUEEZE EXPAND_DIMS BITCAST STABLEHLO_RESHAPE", "the same words in the same order under another shape"
    ),
    **_for_all("SHAPE RANK BROADCAST_ARGS", "shapes are known before the model runs"),
    **_for_all(
        "CONCATENATION PACK UNPACK SPLIT SPLIT_V SLICE STRIDED_SLICE STABLEHLO_CONCATENATE STABLEHLO_SLICE",
        "who writes or reads the parts does so at their place in the whole",
    ),
    **_for_all(
        "PAD PADV2 MIRROR_PAD STABLEHLO_PAD", "who reads the padded words makes the padding from their addresses"
    ),
    **_for_all(
        "QUANTIZE DEQUANTIZE CAST DENSIFY STABLEHLO_CONVERT",
        "the accelerator has one type of word, whatever types the file stores",
    ),
    **_for_all(
        "VAR_HANDLE READ_VARIABLE CALL_ONCE", "names or sets up a variable, whose words are counted where they are used"
    ),
    **_for_all(
        "HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE HASHTABLE_LOOKUP LSH_PROJECTION SKIP_GRAM "
        "CONCAT_EMBEDDINGS MULTINOMIAL",
        "tables, texts and drawing lots are the host's, whose work is not modelled",
    ),
}
"""Operators that take nothing of the accelerator, and why."""

_UNLISTED: Final = ("NONE", *RECTIFIERS)

NOT_COSTED: Final[dict[str, str]] = {
    **_for_all(
        "IF WHILE CALL STABLEHLO_WHILE STABLEHLO_CASE STABLEHLO_COMPOSITE",
        "its work is in other subgraphs, and how often they run depends on the data",
    ),
    **_for_all("CUSTOM DELEGATE STABLEHLO_CUSTOM_CALL", "the file does not say what it computes"),
    **_for_all(
        "STABLEHLO_CONVOLUTION STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW",
        "which sides it multiplies or reduces is in options that are not read",
    ),
    "PLACEHOLDER_FOR_GREATER_OP_CODES": "a number in the schema, no operator",
}
"""Operators of which the main graph does not say what they take, and why."""


def read_workload(graph: Graph) -> Workload:
    """Turn the operators of a graph into layers.

    Raises
    ------
    edge_runtime.errors.ModelFileError
        An operator lacks a tensor that it needs, or has one of a shape that it cannot have.
    """
    layers: list[Layer] = []
    uncosted: list[Uncosted] = []
    made_by: dict[int, tuple[int, ...]] = {}
    for operator in graph.operators:
        name = graph.tensors[operator.outputs[0]].name
        sources = tuple(dict.fromkeys(layer for index in operator.inputs for layer in made_by.get(index, ())))
        layer = _layer(graph, operator, name, sources)
        if layer is None:
            # A custom operator is called "CUSTOM:" and its name.
            reason = NOT_COSTED.get(operator.kind.partition(":")[0], "it has no cost model")
            uncosted.append(Uncosted(name, operator.kind, reason))
            made_by |= dict.fromkeys(operator.outputs, sources)
            continue
        fused = _fused_activation(operator)
        if fused == "TANH":
            layer = replace(layer, functions=layer.functions + layer.outputs)
        elif fused not in _UNLISTED:
            uncosted.append(Uncosted(name, f"{fused} fused into {operator.kind}", "it has no cost model"))
        made_by |= dict.fromkeys(operator.outputs, (len(layers),))
        layers.append(layer)
    return Workload(tuple(layers), tuple(uncosted))


def _layer(graph: Graph, operator: Operator, name: str, sources: tuple[int, ...]) -> Layer | None:
    """Return the operator as a layer, or None where no table says what it takes."""
    kind = operator.kind
    if kind in NO_COST:
        # Constants here are shapes and paddings, or float16 weights, which the layer behind accounts for.
        return replace(_moved(graph, operator, name, sources), weights=0)
    if kind not in PRODUCTS and kind not in VECTOR and kind not in SPECIAL:
        return None
    if operator.input(0) < 0:
        raise ModelFileError(f"damaged .tflite: {where(operator)} has no input 0")
    moved = _moved(graph, operator, name, sources)
    return PRODUCTS[kind](graph, operator, moved) if kind in PRODUCTS else vector_layer(graph, operator, moved)


def _moved(graph: Graph, operator: Operator, name: str, sources: tuple[int, ...]) -> Layer:
    """Return the operator as a layer that takes in and gives out, through its fused ReLU, and does not compute."""
    activations, constants = 0, 0
    for index in operator.inputs:
        if index >= 0 and is_stored(graph, index):
            constants += graph.tensors[index].size
        elif index >= 0:
            activations += graph.tensors[index].size
    outputs = sum(graph.tensors[index].size for index in operator.outputs)
    return Layer(
        name=name,
        operator=operator.kind,
        kind="no cost",
        inputs=activations,
        outputs=outputs,
        weights=constants,
        rectified=outputs if _fused_activation(operator) in RECTIFIERS else 0,
        sources=sources,
    )


def _fused_activation(operator: Operator) -> str:
    number = operator.options.get("activation", 0)
    return ACTIVATIONS[number] if number < len(ACTIVATIONS) else f"activation {number}"
