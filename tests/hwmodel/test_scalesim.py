"""Agreement with SCALE-Sim 3.0.0, layer by layer."""

from __future__ import annotations

import csv
import math

import pytest

from hwmodel import Accelerator, Layer, MatrixProduct, Window, layer_figures

# Word = one element; the sizes of the runs' configurations.
BUFFERS = {
    "tpu256": {"weight_buffer_kib": 6144, "activation_buffer_kib": 6144},
    "a32": {"weight_buffer_kib": 512, "activation_buffer_kib": 512},
}


def scalesim_array(rows, columns, dataflow, **buffers):
    free = {f"{part}_pj": 0.0 for part in ("add", "multiply", "max_pool", "relu", "sram", "dram")}
    return Accelerator(name="scalesim", rows=rows, columns=columns, dataflow=dataflow, word="int8", **free, **buffers)


def scalesim_layer(name, height, width, kernel_height, kernel_width, channels, filters, stride):
    """A line of a topology: its image includes the padding, nothing has a bias, and outputs are rounded up.

    (Where the stride does not divide the image evenly, TensorFlow rounds them down.)
    """
    image, kernel = (height, width), (kernel_height, kernel_width)
    output = tuple(math.ceil((side - taps + stride) / stride) for side, taps in zip(image, kernel, strict=True))
    window = Window(image, output, kernel, (stride, stride), (1, 1), channels, padding=(0, 0))
    product = MatrixProduct(math.prod(kernel) * channels, filters, math.prod(output), window=window)
    inputs, outputs = math.prod(image) * channels, math.prod(output) * filters
    return Layer(name, "CONV_2D", "convolution", inputs, outputs, product.weights, (product,))


def counts(layer, accelerator):
    """Cycles, reads of inputs and weights, writes of outputs, as SCALE-Sim reports them."""
    figures = layer_figures(layer, accelerator)
    writes = figures.accesses.output_writes
    if accelerator.dataflow == "os":
        # It adds the two sides of every fold's block of outputs to the number of its elements
        # (systolic_compute_os.create_ofmap_demand_mat); the outputs themselves leave the array once.
        (product,) = layer.products
        folds = -(-product.pixels // accelerator.rows) * -(-product.filters // accelerator.columns)
        writes += folds * (accelerator.rows + accelerator.columns)
    return figures.array_cycles, figures.accesses.input_reads, figures.accesses.weight_reads, writes


@pytest.mark.parametrize(
    ("topology", "rows", "columns", "dataflow", "expected"),
    [
        # The reference runs.
        (("conv2_2", 114, 114, 3, 3, 128, 128, 1), 256, 256, "ws", (66550, 14450688, 147456, 8028160)),
        (("fc8", 1, 1, 1, 1, 4096, 1000, 1), 256, 256, "ws", (49088, 16384, 4096000, 16000)),
        (("conv1", 227, 227, 11, 11, 3, 96, 4), 32, 32, "ws", (112284, 3294225, 34848, 3484800)),
        (("conv4_1", 30, 30, 3, 3, 256, 512, 1), 256, 256, "os", (22512, 3612672, 4718592, 405504)),
        (("fc7", 1, 1, 1, 1, 4096, 4096, 1), 256, 256, "os", (73696, 65536, 16777216, 12288)),
        # Runs of our own with the same version: arrays that are no squares, a layer smaller than the array, one unit.
        (("a", 12, 10, 3, 3, 5, 7, 1), 4, 6, "ws", (2208, 7200, 315, 6720)),
        (("a", 12, 10, 3, 3, 5, 7, 1), 4, 6, "os", (2120, 7200, 6300, 960)),
        (("a", 12, 10, 3, 3, 5, 7, 1), 4, 6, "is", (3192, 3600, 4410, 6720)),
        (("b", 5, 7, 3, 2, 2, 3, 2), 16, 9, "ws", (47, 96, 36, 24)),
        (("b", 5, 7, 3, 2, 2, 3, 2), 16, 9, "os", (35, 96, 36, 49)),
        (("b", 5, 7, 3, 2, 2, 3, 2), 16, 9, "is", (42, 96, 36, 24)),
        (("c", 3, 4, 2, 2, 2, 3, 1), 1, 1, "ws", (168, 144, 24, 144)),
        (("c", 3, 4, 2, 2, 2, 3, 1), 1, 1, "os", (144, 144, 144, 54)),
        (("c", 3, 4, 2, 2, 2, 3, 1), 1, 1, "is", (192, 48, 144, 144)),
    ],
)
def test_facts(topology, rows, columns, dataflow, expected):
    assert counts(scalesim_layer(*topology), scalesim_array(rows, columns, dataflow)) == expected


@pytest.mark.parametrize(
    ("topology", "dataflow", "kib", "inputs", "weights"),
    [
        # Reference: all fits; and the one layer whose image (3.3 M words) is more than half the buffer (3.1 M).
        (("conv5_1", 16, 16, 3, 3, 512, 512, 1), "ws", 6144, 131072, 2359296),
        (("conv1_2", 226, 226, 3, 3, 64, 64, 1), "ws", 6144, 9739877, 36864),
        # Runs of our own on 16 x 48 units with small buffers.
        (("a", 30, 30, 3, 3, 64, 40, 1), "ws", 32, 451584, 23040),
        (("e", 16, 16, 3, 3, 128, 64, 1), "ws", 8, 451584, 73728),
        (("a", 30, 30, 3, 3, 64, 40, 1), "os", 32, 69594, 1128960),
        (("e", 16, 16, 3, 3, 128, 64, 1), "os", 32, 74872, 958464),
        (("a", 30, 30, 3, 3, 64, 40, 1), "is", 32, 70306, 391680),
        (("a", 30, 30, 3, 3, 64, 40, 1), "is", 8, 134792, 391680),
    ],
)
def test_dram_facts(topology, dataflow, kib, inputs, weights):
    rows, columns = (256, 256) if kib == 6144 else (16, 48)
    array = scalesim_array(rows, columns, dataflow, weight_buffer_kib=kib, activation_buffer_kib=kib)
    traffic = layer_figures(scalesim_layer(*topology), array).traffic
    assert traffic.dram_weights == weights
    assert traffic.dram_inputs == pytest.approx(inputs, rel=0.05)


def reference_rows(capnn_data, run):
    """Rows of a run that finished, each with its layer: "vgg16_pad__tpu256_ws_calc__full"."""
    folder = capnn_data / "reference" / "scalesim"
    topology, configuration, _ = run.split("__")
    with (folder / "topo" / f"{topology}.csv").open(newline="") as lines:
        layers = {
            line[0]: scalesim_layer(line[0], *map(int, line[1:8])) for line in list(csv.reader(lines))[1:] if line
        }
    with (folder / "out" / f"{run}.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["status"] == "ok"]
    array = scalesim_array(
        int(rows[0]["R"]), int(rows[0]["C"]), rows[0]["dataflow"], **BUFFERS[configuration.split("_")[0]]
    )
    return [(row, layers[row["layer"]]) for row in rows], array


@pytest.mark.parametrize(
    ("run", "layers"),
    [
        ("vgg16_pad__tpu256_ws_calc__compute", 16),
        ("vgg16_pad__tpu256_os_calc__compute", 16),
        ("alexnet_pad__a32_ws_calc__compute", 8),
    ],
)
def test_every_compute_row(capnn_data, run, layers):
    rows, array = reference_rows(capnn_data, run)
    assert len(rows) == layers
    for row, layer in rows:
        names = ("total_cycles", "sram_if_rd", "sram_w_rd", "sram_of_wr")
        assert counts(layer, array) == tuple(int(row[name]) for name in names), row["layer"]
        figures = layer_figures(layer, array)
        assert layer.macs == int(row["macs"])
        utilisation = layer.macs / (figures.array_cycles * array.rows * array.columns)
        assert utilisation * 100 == pytest.approx(float(row["overall_util_pct"]))


@pytest.mark.parametrize(
    ("run", "layers"), [("vgg16_pad__tpu256_ws_calc__full", 13), ("alexnet_pad__tpu256_ws_calc__full", 7)]
)
def test_every_full_row(capnn_data, run, layers):
    rows, array = reference_rows(capnn_data, run)
    assert len(rows) == layers
    for row, layer in rows:
        # These runs report the index of the last cycle.
        names = ("sram_if_rd", "sram_w_rd", "sram_of_wr")
        expected = (int(row["total_cycles"]) + 1, *(int(row[name]) for name in names))
        assert counts(layer, array) == expected, row["layer"]
        traffic = layer_figures(layer, array).traffic
        assert traffic.dram_weights == int(row["dram_w_rd"]), row["layer"]
        if layer.inputs <= 6144 * 512:
            assert traffic.dram_inputs == int(row["dram_if_rd"]), row["layer"]
        else:  # SCALE-Sim also fetches again the rows in between whenever half a buffer is full
            assert traffic.dram_inputs == pytest.approx(int(row["dram_if_rd"]), rel=0.005), row["layer"]
