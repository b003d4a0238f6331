"""How long the hardware model takes for VGG-16 and ResNet-152, and how long SCALE-Sim 3.0.0 for the same layers.

`python -m benchmarks.hwmodel --json`; needs no data. `NETWORK_PRESET_ms` is everything from the content of the file to
the report with all totals, `NETWORK_graph_ms` the same from the graph once read: the best of several runs, which other
processes on the machine disturb least. SCALE-Sim is installed from its package into an environment of its own that is
removed again; where that fails, the result says so. It makes what its compute report counts (cycles, SRAM accesses),
without simulating its memories, for each convolution and dense layer except VGG-16's fc6, which would take it 10 GB of
memory; the figures of both are compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import timeit
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.command import main
from benchmarks.networks.shapes_only import resnet152, vgg16
from edge_runtime.flatmodel import Graph, read_graph
from hwmodel import DAC20, PRESETS, estimate, layer_figures

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwmodel import Accelerator, Layer

REPEATS = 20
NETWORKS = {"vgg16": vgg16, "resnet152": resnet152}
SCALE_SIM = "scalesim==3.0.0"
# Newer ones no longer take what it does with arrays of one element.
NUMPY = "numpy<2.3"
LEFT_OUT = {"fc6"}
TIMEOUT_S = 600

_CONFIGURATION = """[general]
run_name = benchmark
[architecture_presets]
ArrayHeight: 256
ArrayWidth: 256
IfmapSramSzkB: 6144
FilterSramSzkB: 6144
OfmapSramSzkB: 2048
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: ws
Bandwidth: 10
ReadRequestBuffer: 512
WriteRequestBuffer: 512
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""

# Runs in SCALE-Sim's environment. Prints [cycles, input reads, weight reads, output writes] of each layer, and seconds.
_SCRIPT = """
import json, sys, time
from scalesim.layout_utils import layouts
from scalesim.scale_config import scale_config
from scalesim.single_layer_sim import single_layer_sim
from scalesim.topology_utils import topologies
config, topology = scale_config(), topologies()
config.read_conf_file(sys.argv[1])
topology.load_arrays(sys.argv[2])
counts, start = [], time.perf_counter()
for layer in range(topology.get_num_layers()):
    run = single_layer_sim()
    run.set_params(layer_id=layer, config_obj=config, topology_obj=topology, layout_obj=layouts(), verbose=False)
    names = ("ifmap", "filter", "ofmap")
    matrices = {f"{name}_op_mat": getattr(run.op_mat_obj, f"get_{name}_matrix")()[1] for name in names}
    array = run.compute_system
    array.set_params(config_obj=config, **matrices)
    demand = array.get_demand_matrices()
    counts.append([len(demand[2]), *(int(getattr(array, f"get_{name}_requests")()) for name in names)])
print(json.dumps({"counts": counts, "seconds": time.perf_counter() - start}))
"""


def measure() -> dict[str, Any]:
    """Return the JSON object: `NETWORK_scalesim_over_ours` for each network, and what was measured."""
    ratios: dict[str, float] = {}
    context: dict[str, Any] = {}
    contents = {name: make() for name, make in NETWORKS.items()}
    for name, content in contents.items():
        for preset in PRESETS.values():
            context[f"{name}_{preset.name}_ms"] = 1e3 * _best(partial(_whole, content, preset))
        context[f"{name}_graph_ms"] = 1e3 * _best(partial(_whole, read_graph(content), DAC20))
    with tempfile.TemporaryDirectory() as folder:
        python, problem = _install(Path(folder))
        if python is None:
            context["scalesim"] = f"not compared: {problem}"
            return {"ratios": ratios, "context": context}
        context["scalesim"] = SCALE_SIM
        for name, content in contents.items():
            layers = _array_layers(content)
            try:
                theirs = _scale_sim(Path(folder), python, layers)
            except (subprocess.SubprocessError, ValueError) as error:
                context[f"{name}_scalesim"] = f"failed: {error}"
                continue
            ours = _all_counts(layers)
            seconds = _best(partial(_all_counts, layers))
            ratios[f"{name}_scalesim_over_ours"] = theirs["seconds"] / seconds
            context |= {
                f"{name}_layers": len(layers),
                f"{name}_layers_scalesim_s": theirs["seconds"],
                f"{name}_layers_ours_ms": 1e3 * seconds,
                f"{name}_mismatches": sum(a != b for a, b in zip(ours, theirs["counts"], strict=True)),
            }
    return {"ratios": ratios, "context": context}


def _best(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, number=1, repeat=REPEATS))


def _install(folder: Path) -> tuple[Path | None, str]:
    """Install SCALE-Sim below `folder`; return its Python, or None and why there is none."""
    python = folder / "environment" / "bin" / "python"
    commands = (
        [sys.executable, "-m", "venv", str(folder / "environment")],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SCALE_SIM, NUMPY],
    )
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return None, f"{SCALE_SIM} could not be installed within {TIMEOUT_S} s"
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return None, f"{SCALE_SIM} cannot be installed here ({lines[-1] if lines else 'no message'})"
    return python, ""


def _array_layers(content: bytes) -> list[Layer]:
    """Return the layers that run on the array, each as SCALE-Sim knows it: its image includes the padding."""
    layers = []
    for figures in estimate(content).layers:
        layer = figures.layer
        if layer.products and layer.name not in LEFT_OUT:
            layers.append(layer)
    return layers


def _scale_sim(folder: Path, python: Path, layers: list[Layer]) -> dict[str, Any]:
    (folder / "array.cfg").write_text(_CONFIGURATION, encoding="utf-8")
    header = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
    lines = [",".join(map(str, (f"layer{number}", *_topology(layer), ""))) for number, layer in enumerate(layers)]
    (folder / "layers.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    command = [str(python), "-c", _SCRIPT, str(folder / "array.cfg"), str(folder / "layers.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, cwd=folder)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _topology(layer: Layer) -> tuple[int, ...]:
    (product,) = layer.products
    window = product.window
    if window is None:
        return (1, 1, 1, 1, product.reduction, product.filters, 1)
    # Exactly as much image as the windows reach: SCALE-Sim rounds outputs up where the stride leaves a rest.
    sides = (
        (out - 1) * stride + taps for out, stride, taps in zip(window.output, window.stride, window.kernel, strict=True)
    )
    return (*sides, *window.kernel, window.channels, product.filters, window.stride[0])


def _whole(content: bytes | Graph, accelerator: Accelerator) -> object:
    return estimate(content, accelerator).totals


def _all_counts(layers: list[Layer]) -> list[list[int]]:
    counts = []
    for layer in layers:
        figures = layer_figures(layer, DAC20)
        accesses = figures.accesses
        counts.append([figures.array_cycles, accesses.input_reads, accesses.weight_reads, accesses.output_writes])
    return counts


if __name__ == "__main__":
    main(measure, needs_data=False)
