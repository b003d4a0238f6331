"""The models that a device has in memory: verified, tried once, ready to answer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.acceptance import check_replaces
from edge_runtime.errors import DigestError, InputError, MessageError, ModelFileError
from edge_runtime.flatmodel import read_graph
from edge_runtime.interpreter import LoadedModel
from edge_runtime.slots import BASE, ModelSlots, StoredModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.flatmodel import Graph

__all__ = ["Models", "ServingModel", "ends_in_softmax", "load_models"]


class ServingModel:
    """A verified model in memory, tried once, and safe for use by several threads (which take turns).

    Parameters
    ----------
    stored
        The verified file and its manifest.
    slot
        Where it is kept: "base", "a" or "b"; None while it is kept nowhere.
    threads
        Threads of the interpreter.

    Raises
    ------
    ModelFileError
        The interpreter refuses the file, it fails on a first image, or its input or outputs are not what its manifest
        says.
    """

    def __init__(self, stored: StoredModel, slot: str | None = None, *, threads: int = 1) -> None:
        self.manifest = stored.manifest
        self.slot = slot
        name = f"model {stored.manifest.digest[:12]}"
        self._loaded = LoadedModel(stored.content, threads=threads, name=name)
        self._turn = threading.Lock()
        expected = self.manifest.preprocessing.shape
        if self._loaded.input_shape != expected:
            raise ModelFileError(
                f"{name}: takes {self._loaded.input_shape}, its manifest says {expected}: the cloud sent a wrong pair"
            )
        if self._loaded.input_dtype != np.float32 and self._loaded.input_quantization is None:
            raise ModelFileError(
                f"{name}: takes {self._loaded.input_dtype} inputs: only float32 or quantised inputs can be served"
            )
        self._has_softmax = ends_in_softmax(read_graph(stored.content, name))
        classes = len(self.manifest.classes)
        if self._loaded.output_shapes[0] != (classes,):
            shape = self._loaded.output_shapes[0]
            raise ModelFileError(
                f"{name}: has outputs {shape}, its manifest names {classes} classes: the cloud sent a wrong pair"
            )
        self.probabilities(np.zeros(expected, dtype=np.uint8))

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each class, `(classes,)` float32, for one image `(height, width, channels)` uint8.

        Raises
        ------
        InputError
            The image has another shape or dtype than the model takes.
        ModelFileError
            The interpreter fails, or gives numbers that are not finite.
        """
        return self.run(pixels)[0]

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Return what `probabilities` does, and the time of the inference alone, in s."""
        inputs = self.manifest.preprocessing.apply(pixels[np.newaxis])
        with self._turn:
            start = time.perf_counter()
            outputs: NDArray[np.float32] = self._loaded.run(inputs)[0][0]
            seconds = time.perf_counter() - start
        if not np.isfinite(outputs).all():
            raise ModelFileError(f"{self._loaded.name}: gives outputs that are not finite numbers")
        # Of 1000 classes many are less than half a step of an int8 output: what is left does not sum to 1.
        shares = outputs if self._has_softmax and outputs.sum() > 0 else np.exp(outputs - outputs.max())
        return np.asarray(shares / shares.sum(), dtype=np.float32), seconds


def ends_in_softmax(graph: Graph) -> bool:
    """Whether the outputs are probabilities already, whatever they are stored as or shaped to after that."""
    operator = graph.output_maker(("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE"))
    return operator is not None and operator.kind == "SOFTMAX"


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a device: replaced as a whole, so that a classification never sees half a swap.

    Attributes
    ----------
    base
        The uncut model; None before the first was fetched, or where its file is damaged.
    cut
        The active cut; None while the base serves.
    """

    base: ServingModel | None = None
    cut: ServingModel | None = None

    @property
    def active(self) -> ServingModel | None:
        """The model that answers: the cut, or else the base; None without any."""
        return self.cut or self.base


def load_models(slots: ModelSlots, *, threads: int = 1, base: ServingModel | None = None) -> tuple[Models, list[str]]:
    """Load what `slots` hold: the base, and the best cut that is whole. Also return what was damaged, a line each.

    A `base` that is in memory already is not loaded again.

    Everything is compared with the digests that it was stored with, and run once; cuts that were given up are left out.
    Signatures are not looked at: they were checked when the models came in.
    """
    damage: list[str] = []
    rejected = slots.rejected()

    def load(slot: str, base: ServingModel | None) -> ServingModel | None:
        try:
            stored = slots.read(slot)
            if stored is None or stored.manifest.digest in rejected:
                return None
            model = ServingModel(stored, slot, threads=threads)
            if base is not None:
                check_replaces(model.manifest, base.manifest)
        except (DigestError, ModelFileError, MessageError, InputError) as error:
            damage.append(str(error))
            return None
        return model

    base = base or load(BASE, None)
    cut = next(filter(None, (load(slot, base) for slot in slots.cut_slots())), None)
    return Models(base, cut), damage
