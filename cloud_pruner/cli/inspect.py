"""`capnn inspect`: what of a model can be pruned, and what stands in the way."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cloud_pruner.cli.terminal import print_json
from cloud_pruner.inspection import inspect_model
from edge_runtime.flatmodel import BaseModel, normalize
from hwmodel.table import quantity, short_name

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from cloud_pruner.inspection import LayerInspection, ModelInspection, TensorInspection

__all__ = ["add_command"]

_FILE_WIDTH: Final = 1000  # where stdout is no terminal, nothing is wrapped


def add_command(commands: Any) -> None:
    """Add `capnn inspect` to the subcommands."""
    parser = commands.add_parser(
        "inspect",
        help="see what of a .tflite can be pruned",
        description="Show the layers of a .tflite, which of their units may be pruned, and what stands in the way of\n"
        "the others. Layers are numbered as the operators of the file. A channel group is a set of units\n"
        "that are kept or pruned together, as those of all layers that are added to one residual stream.",
        example="capnn inspect base.tflite",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.tflite", help="any .tflite")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    name = str(arguments.model)
    content = arguments.model.read_bytes()
    inspection = inspect_model(BaseModel(normalize(content, name), name=name))
    if arguments.json:
        print_json({"model": name, "file_bytes": len(content), **dataclasses.asdict(inspection)})
    else:
        _print(name, len(content), inspection)
    return 0


def _print(name: str, size: int, inspection: ModelInspection) -> None:
    _print_table(
        f"{name}: {len(inspection.layers)} operators with weights",
        ("op", "layer", "weights", "output", "group", "prunable", "parameters", "MACs"),
        [_layer_row(layer) for layer in inspection.layers],
        texts={1: 15, 2: 11, 4: 6},
    )
    without = [layer for layer in inspection.layers if layer.reason]
    for layer in without:
        print(_printable(f"op {layer.operator} has no prunable units: {layer.kind} {layer.reason}"))
    if without:
        print()
    _print_table(
        f"{len(inspection.groups)} channel groups",
        ("group", "units", "made by", "read by", "parameters", "prunable"),
        [
            (
                str(group.number),
                str(group.units),
                _listed(group.layers),
                _listed(group.readers),
                f"{group.parameters:,}",
                "yes" if group.prunable else "no: " + "; ".join(group.reasons),
            )
            for group in inspection.groups
        ],
        texts={2: 7, 3: 7, 5: 16},
    )
    print(f"parameters: {inspection.parameters:,}; {inspection.prunable_share:.1%} are in layers with prunable units")
    print(f"MACs: {'at least ' if inspection.not_costed else ''}{quantity(inspection.macs)}")
    if inspection.not_costed:
        print(f"operators without a cost model: {_counted(inspection.not_costed)}")
    print(f"operators that slicing does not understand: {_counted(inspection.not_understood)}")
    print(f"file: {size:,} bytes")
    print(f"inputs: {_tensors(inspection.inputs)}")
    print(f"outputs: {_tensors(inspection.outputs)}")
    print(f"metadata: {_listed(inspection.metadata)}")
    print(f"signatures: {_listed(inspection.signatures)}")
    print(f"packed files: {_listed(inspection.packed_files)}")


def _layer_row(layer: LayerInspection) -> tuple[str, ...]:
    return (
        str(layer.operator),
        f"{layer.kind} {short_name(layer.name)}",
        f"{_sides(layer.weights)} {layer.dtype.replace(' per ', '/')}",
        _sides(layer.output[1:] if layer.output[:1] == (1,) else layer.output),  # without a batch of one
        # After a concatenation there may be dozens.
        f"{len(layer.groups)} groups" if len(layer.groups) > 2 else ", ".join(map(str, layer.groups)) or "-",
        str(layer.prunable_units),
        f"{layer.parameters:,}",
        "?" if layer.macs is None else quantity(layer.macs),
    )


def _printable(name: str) -> str:
    """Return a name from a file without what would steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _listed(items: Iterable[object]) -> str:
    return _printable(", ".join(map(str, items))) or "none"


def _counted(kinds: Mapping[str, int]) -> str:
    return _listed(f"{kind} ({count})" for kind, count in kinds.items())


def _tensors(tensors: Sequence[TensorInspection]) -> str:
    return _listed(f"{tensor.name} {_sides(tensor.shape)} {tensor.dtype}" for tensor in tensors)


def _print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: Mapping[int, int]
) -> None:
    """Print a title and a table without borders that fits the terminal, from 80 columns on.

    `texts` are the columns that may wrap, with the width that each can do with; what has most to spare gives way
    first. The others are numbers, which never wrap.
    """
    console = Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH)
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    while sum(widths) + len(widths) - 1 > console.width:
        slack, number = max((widths[number] - least, number) for number, least in texts.items())
        if slack <= 0:
            break
        widths[number] -= 1
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
        table.add_column(column, width=width, justify="left" if number in texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(table, highlight=False)
    console.print()
