"""The command `capnn-hw`: what a .tflite costs on an accelerator, and what a cut of it saves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.commandline import CommandParser, run_command
from edge_runtime.errors import EdgeError
from edge_runtime.flatmodel import read_graph
from hwmodel.accelerator_file import read_accelerator
from hwmodel.csv_rows import layers_csv, sweep_csv
from hwmodel.errors import HardwareError, MissingExtraError
from hwmodel.presets import DAC20, PRESETS
from hwmodel.report import compare, estimate
from hwmodel.sweep import Sweep
from hwmodel.table import comparison_text, report_text, sweep_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from hwmodel.accelerator import Accelerator
    from hwmodel.report import Report

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = CommandParser(
        prog="capnn-hw",
        description="Estimate cycles, time, memory words and energy of a model on a TPU-like accelerator.",
        example="capnn-hw base.tflite --compare cut.tflite\n"
        "  capnn-hw base.tflite --preset tpu-v1 --sweep rows,columns=8..256 --plot plots/",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.tflite", help="the model")
    parser.add_argument(
        "--compare", type=Path, metavar="CUT.tflite", help="a cut of the model: print the ratio of each figure"
    )
    accelerator = parser.add_mutually_exclusive_group()
    accelerator.add_argument(
        "--preset", choices=sorted(PRESETS), default=DAC20.name, help="the accelerator (default: %(default)s)"
    )
    accelerator.add_argument(
        "--accelerator", type=Path, metavar="FILE.toml", help="an accelerator of your own (docs/hardware-model.md)"
    )
    parser.add_argument(
        "--dataflow", choices=("ws", "os", "is"), help="what stays in the array: weights, outputs or inputs"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="inferences that run together (default: 1)")
    parser.add_argument(
        "--sweep", metavar="FIELD=FIRST..LAST", help="double a field, or several at once (rows,columns=8..256)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, energies in pJ")
    form.add_argument("--csv", action="store_true", help="print CSV: a row a layer, or a row a step of the sweep")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write plots as PNG files (needs capnn[plots])")
    return run_command(parser, _run, (EdgeError, HardwareError), argv)


def _run(arguments: argparse.Namespace) -> int:
    write_plots = _plotter() if arguments.plot else None
    accelerator = _accelerator(arguments)
    models = [_model(path, arguments.batch) for path in (arguments.model, arguments.compare) if path is not None]
    reports = [model(accelerator) for model in models]
    plan = Sweep.parse(arguments.sweep) if arguments.sweep else None
    steps = [] if plan is None else [[one(step) for one in models] for step in plan.accelerators(accelerator)]
    print(_output(arguments, reports, plan, steps))
    if write_plots is not None:
        for path in write_plots(arguments.plot, reports, plan, steps):
            # Beside JSON and CSV for a program, the names go to nobody.
            if not (arguments.json or arguments.csv):
                print(f"wrote {path}")
    return 0


def _accelerator(arguments: argparse.Namespace) -> Accelerator:
    one = read_accelerator(arguments.accelerator) if arguments.accelerator else PRESETS[arguments.preset]
    return replace(one, dataflow=arguments.dataflow) if arguments.dataflow else one


def _model(path: Path, batch: int) -> Callable[[Accelerator], Report]:
    graph = read_graph(path.read_bytes(), str(path))
    return lambda accelerator: estimate(graph, accelerator, name=str(path), batch=batch)


def _output(arguments: argparse.Namespace, reports: list[Report], plan: Sweep | None, steps: list[list[Report]]) -> str:
    if plan is not None:
        if arguments.csv:
            return sweep_csv(plan, steps)
        return _json({"sweep": _sweep_fields(plan, steps)}) if arguments.json else sweep_text(plan, steps)
    if arguments.csv:
        return layers_csv(reports)
    if len(reports) == 2:
        comparison = compare(*reports)
        return _json(comparison.to_dict()) if arguments.json else comparison_text(comparison)
    return _json(reports[0].to_dict()) if arguments.json else report_text(reports[0])


def _sweep_fields(plan: Sweep, steps: list[list[Report]]) -> list[dict[str, Any]]:
    return [
        {**dict.fromkeys(plan.fields, value), "models": [report.to_dict() for report in step]}
        for value, step in zip(plan.values, steps, strict=True)
    ]


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2, allow_nan=False)


def _plotter() -> Callable[[Path, list[Report], Sweep | None, list[list[Report]]], list[Path]]:
    """Import what draws, before any work is done."""
    try:
        from hwmodel.plots import write_plots  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("plotting needs capnn[plots]: pip install 'capnn[plots]'") from error
    return write_plots
