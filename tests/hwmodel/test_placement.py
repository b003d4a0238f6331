"""What stays on the chip between layers, and between inferences."""

from __future__ import annotations

from dataclasses import replace

from hwmodel import DAC20, Layer, Workload, convolution, dense, estimate_workload, max_pooling

# On this chip 4 KiB of activations and 8 KiB of weights, in words of one byte.
CHIP = replace(
    DAC20, name="chip", word="int8", accumulator_bits=8, activation_buffer_kib=4, weight_buffer_kib=8,
    keep_activations=True,
)  # fmt: skip
SMALL = convolution("small", (16, 16, 4), 8, bias=False)  # 1 KiB in, 2 KiB out
POOL = max_pooling("pool", (16, 16, 8))  # 2 KiB in, 0.5 KiB out
LARGE = convolution("large", (8, 8, 8), 64, bias=False)  # 0.5 KiB in, 4 KiB out


def traffic(*layers, accelerator=CHIP):
    report = estimate_workload(Workload(layers), accelerator)
    return {
        figures.layer.name: (figures.traffic.dram_inputs, figures.traffic.dram_outputs) for figures in report.layers
    }


def test_what_fits_stays():
    assert traffic(SMALL, POOL) == {"small": (0, 0), "pool": (0, 0)}


def test_without_keeping_every_layer_reads_and_writes_dram():
    words = traffic(SMALL, POOL, accelerator=replace(CHIP, keep_activations=False))
    assert words == {"small": (1024, 2048), "pool": (2048, 512)}


def test_what_does_not_fit_is_written_by_its_producer_and_read_by_its_reader():
    pointwise = convolution("after", (8, 8, 64), 1, (1, 1), bias=False)  # 4 KiB in
    words = traffic(SMALL, POOL, LARGE, pointwise)
    assert words["small"] == (0, 0)
    assert words["pool"] == (0, 512)  # it is read by the large layer, in which not all fits
    assert words["large"] == (512, 4096)
    assert words["after"] == (4096, 64)


def test_a_shortcut_waits_on_the_chip_while_other_layers_run():
    """2 KiB wait for the addition while the branch works on 2 KiB in and 2 KiB out."""
    branch = convolution("branch", (16, 16, 8), 8, (1, 1), bias=False)
    second = convolution("second", (16, 16, 8), 8, (1, 1), bias=False)
    addition = Layer("sum", "ADD", "elementwise", 4096, 2048, additions=2048, sources=(0, 2))
    words = traffic(SMALL, branch, second, addition, accelerator=replace(CHIP, activation_buffer_kib=6))
    assert words == {"small": (0, 0), "branch": (0, 0), "second": (0, 0), "sum": (0, 0)}
    words = traffic(SMALL, branch, second, addition, accelerator=replace(CHIP, activation_buffer_kib=5))
    assert words["small"] == (0, 2048)
    assert words["sum"] == (4096, 2048)


def test_operators_without_cost_hand_on_where_their_input_is():
    reshape = Layer("reshape", "RESHAPE", "no cost", 4096, 4096)
    head = dense("head", 4096, 2, bias=False)
    words = traffic(LARGE, reshape, head)
    assert words == {"large": (512, 4096), "reshape": (0, 0), "head": (4096, 2)}


def test_weights_stay_from_one_inference_to_the_next():
    layers = tuple(dense(f"d{i}", 64, 64, bias=False) for i in range(3))  # 4 KiB each

    def fetched(*layers, **changes):
        report = estimate_workload(Workload(layers), replace(CHIP, **changes))
        return [figures.traffic.dram_weights for figures in report.layers]

    assert fetched(*layers[:2], keep_weights=True) == [0, 0]  # all fit
    assert fetched(*layers, keep_weights=True) == [0, 4096, 4096]  # else they get half the buffer
    assert fetched(*layers) == [4096] * 3


def test_a_batch_shares_weights_and_multiplies_everything_else():
    network = Workload((SMALL, POOL, dense("head", 512, 10)))
    one, four = (estimate_workload(network, DAC20, batch=batch) for batch in (1, 4))
    assert four.macs == 4 * one.macs
    assert four.weights == one.weights
    assert four.traffic.dram_words == one.traffic.dram_words
    assert four.energy.macs == 4 * one.energy.macs
    assert four.energy.pooling == 4 * one.energy.pooling
    assert one.cycles < four.cycles < 4 * one.cycles
