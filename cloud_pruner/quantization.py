"""How many bits a converted network spends on its numbers, and how far it may then stray from its source.

=========  ==========================================  ==========================================================
kind       weights; what the layers exchange           checked on the compared images
=========  ==========================================  ==========================================================
`none`     float32; float32                            no output differs by more than rounding does
`float16`  float16, widened on loading; float32        outputs vary, and most images keep their top class
`dynamic`  int8; float32, int8 only inside of a layer  likewise
`int8`     int8; int8, also input and output           likewise
=========  ==========================================  ==========================================================

int8 weights have one scale per output channel (in `dynamic` files those of dense layers have one in all). The ranges
of `int8` activations are measured on calibration images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from cloud_pruner.errors import ConversionError
from cloud_pruner.keras_source import import_tensorflow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "CALIBRATION_IMAGES",
    "DIFFERENCE_MAX",
    "QUANTIZE_KINDS",
    "TOP1_AGREEMENT_MIN",
    "Agreement",
    "QuantizeKind",
    "check_agreement",
    "prepare_converter",
]

QuantizeKind: TypeAlias = Literal["none", "float16", "dynamic", "int8"]

QUANTIZE_KINDS: Final[tuple[QuantizeKind, ...]] = get_args(QuantizeKind)

CALIBRATION_IMAGES: Final = 200
"""On how many images, at most, the ranges of `int8` activations are measured."""

DIFFERENCE_MAX: Final = 1e-4
"""For `none`: allowed difference of any output, relative to the range of the source's. Rounding gives about 1e-6."""

TOP1_AGREEMENT_MIN: Final[Mapping[QuantizeKind, float]] = {"float16": 0.75, "dynamic": 0.5, "int8": 0.5}
"""Share of the compared images that must keep their top class.

Measured: of CIFAR networks 95 % and more in int8, 98 % and more with float16 weights; of MobileNetV1 0.25 with its
1000 classes 75 to 90 % in int8, and 42 % on images of another kind than it was trained on. A conversion that went wrong
keeps no more than chance does.
"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike the outputs of a source and of its conversion are.

    Attributes
    ----------
    max_difference
        Largest difference of an output, relative to the range of the source's outputs.
    top1
        Share of images with the same top class.
    """

    max_difference: float
    top1: float


def prepare_converter(converter: Any, kind: QuantizeKind, calibration: NDArray[np.float32] | None) -> None:
    """Set up a `TFLiteConverter` for one of `QUANTIZE_KINDS`.

    `calibration` `(n, height, width, channels)` float32 holds inputs for `int8`; the others need none.
    """
    if kind == "none":
        return
    tf, _ = import_tensorflow()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif kind == "dynamic":
        # With a scale per unit, tflite-runtime does not load the dense layers (FULLY_CONNECTED version 12).
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True  # noqa: SLF001 - the only way
    else:
        assert calibration is not None
        converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8


def check_agreement(
    source: Path, kind: QuantizeKind, reference: NDArray[np.float32], outputs: NDArray[np.float32]
) -> Agreement:
    """Compare the outputs `(images, classes)` of a source and of its conversion by the rules of `kind`.

    Raises
    ------
    ConversionError
        They differ by more than is allowed, or the conversion's are NaN, infinite, or the same for every image.
    """
    if outputs.shape != reference.shape:
        raise ConversionError(f"{source}: its conversion gives outputs of shape {outputs.shape}, not {reference.shape}")
    if not np.isfinite(outputs).all():
        raise ConversionError(f"{source}: its conversion gives NaN or infinite outputs: its numbers are too large")
    # A network that gives one constant has no range: its conversion must then give the very same.
    spread = max(float(np.ptp(reference)), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(outputs - reference).max()) / spread
    top1 = float(np.mean(outputs.argmax(axis=1) == reference.argmax(axis=1)))
    if kind == "none":
        if difference > DIFFERENCE_MAX:
            raise ConversionError(
                f"{source}: its conversion differs by {difference:.2g} of its outputs' range, {DIFFERENCE_MAX:g} is "
                f"allowed: look for layers that are random"
            )
        return Agreement(difference, top1)
    if np.ptp(outputs, axis=0).max() == 0 < np.ptp(reference, axis=0).max():
        raise ConversionError(
            f"{source}: quantised ({kind}), it gives the same outputs for all images: "
            f"give images like those it will meet, and check the preprocessing"
        )
    if top1 < TOP1_AGREEMENT_MIN[kind]:
        raise ConversionError(
            f"{source}: quantised ({kind}), it keeps the top class of only {top1:.0%} of {len(outputs)} images: give "
            f"images like those it will meet, and check the preprocessing"
        )
    return Agreement(difference, top1)
