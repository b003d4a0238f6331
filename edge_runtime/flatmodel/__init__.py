"""The .tflite file as a graph, and its slicing."""

from __future__ import annotations

from edge_runtime.flatmodel.batching import takes_any_batch
from edge_runtime.flatmodel.channels import ChannelGroup, Channels, Consumer, find_channels
from edge_runtime.flatmodel.graph import Graph, Operator, Quantization, Tensor, read_graph
from edge_runtime.flatmodel.normalize import extract, normalize
from edge_runtime.flatmodel.parts import Part, separators
from edge_runtime.flatmodel.plan import Fold, LayerCut, PruningPlan
from edge_runtime.flatmodel.quantization import real_values
from edge_runtime.flatmodel.slicing import BaseModel

__all__ = [
    "BaseModel",
    "ChannelGroup",
    "Channels",
    "Consumer",
    "Fold",
    "Graph",
    "LayerCut",
    "Operator",
    "Part",
    "PruningPlan",
    "Quantization",
    "Tensor",
    "extract",
    "find_channels",
    "normalize",
    "read_graph",
    "real_values",
    "separators",
    "takes_any_batch",
]
