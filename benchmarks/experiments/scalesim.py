"""Reference runs of SCALE-Sim 3.0.0, in the folder that CAPNN_DATA names, beside what the hardware model gives."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any, Final

from hwmodel import Accelerator, Layer, MatrixProduct, Window, layer_figures

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.experiments.store import Row

__all__ = ["RUNS", "compared_layers"]

RUNS: Final = (
    "vgg16_pad__tpu256_ws_calc__compute",
    "vgg16_pad__tpu256_os_calc__compute",
    "alexnet_pad__a32_ws_calc__compute",
    "vgg16_pad__tpu256_ws_calc__full",
    "alexnet_pad__tpu256_ws_calc__full",
)
"""TOPOLOGY__CONFIGURATION__WHAT: "full" runs simulate DRAM too, and report the index of the last cycle."""

# Half of each buffer is worked on; a word is one element. Of each array of the configurations (KiB).
_BUFFERS: Final = {"tpu256": 6144.0, "a32": 512.0}


def compared_layers(data: Path, run: str) -> list[Row]:
    """Return a row for each layer of a run that SCALE-Sim finished.

    `dram_...` are None where the run did not simulate DRAM.
    """
    topology, configuration, what = run.split("__")
    folder = data / "reference" / "scalesim"
    with (folder / "topo" / f"{topology}.csv").open(newline="") as lines:
        layers = {line[0]: _layer(line[0], *map(int, line[1:8])) for line in list(csv.reader(lines))[1:] if line}
    with (folder / "out" / f"{run}.csv").open(newline="") as lines:
        theirs = [row for row in csv.DictReader(lines) if row["status"] == "ok"]
    buffer = _BUFFERS[configuration.split("_")[0]]
    return [_compared(run, one, layers[one["layer"]], buffer, is_full=what == "full") for one in theirs]


def _compared(run: str, theirs: dict[str, str], layer: Layer, buffer: float, *, is_full: bool) -> Row:
    array = _array(int(theirs["R"]), int(theirs["C"]), theirs["dataflow"], buffer)
    figures = layer_figures(layer, array)
    accesses, traffic = figures.accesses, figures.traffic
    writes = accesses.output_writes
    if array.dataflow == "os":
        # SCALE-Sim adds the two sides of every fold's block of outputs to their number.
        (product,) = layer.products
        folds = -(-product.pixels // array.rows) * -(-product.filters // array.columns)
        writes += folds * (array.rows + array.columns)
    cycles = int(theirs["total_cycles"]) + (1 if is_full else 0)
    sram = tuple(int(theirs[name]) for name in ("sram_if_rd", "sram_w_rd", "sram_of_wr"))
    row: Row = {
        "run": run,
        "layer": layer.name,
        "layers": 1,
        "cycles": figures.array_cycles,
        "scalesim_cycles": cycles,
        "cycles_equal": figures.array_cycles == cycles,
        "sram_equal": (accesses.input_reads, accesses.weight_reads, writes) == sram,
        "dram_weights_equal": None,
        "dram_inputs_off": None,
    }
    if is_full:
        row["dram_weights_equal"] = traffic.dram_weights == int(theirs["dram_w_rd"])
        row["dram_inputs_off"] = abs(traffic.dram_inputs / int(theirs["dram_if_rd"]) - 1)
    return row


def _array(rows: int, columns: int, dataflow: Any, buffer: float) -> Accelerator:
    free: dict[str, Any] = {f"{part}_pj": 0.0 for part in ("add", "multiply", "max_pool", "relu", "sram", "dram")}
    return Accelerator(
        name="scalesim",
        rows=rows,
        columns=columns,
        dataflow=dataflow,
        word="int8",
        weight_buffer_kib=buffer,
        activation_buffer_kib=buffer,
        **free,
    )


def _layer(
    name: str, height: int, width: int, kernel_height: int, kernel_width: int, channels: int, filters: int, stride: int
) -> Layer:
    """Return a line of a topology: its image includes the padding, nothing has a bias, and outputs are rounded up."""
    image, kernel = (height, width), (kernel_height, kernel_width)
    output = (
        math.ceil((height - kernel_height + stride) / stride),
        math.ceil((width - kernel_width + stride) / stride),
    )
    window = Window(image, output, kernel, (stride, stride), (1, 1), channels, padding=(0, 0))
    product = MatrixProduct(math.prod(kernel) * channels, filters, math.prod(output), window=window)
    inputs, outputs = math.prod(image) * channels, math.prod(output) * filters
    return Layer(name, "CONV_2D", "convolution", inputs, outputs, product.weights, (product,))
