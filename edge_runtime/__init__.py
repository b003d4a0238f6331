"""What runs on the device: classifies with a model cut to the classes that come up, and keeps that cut up to date.

Importing this loads no interpreter; the first model does. The daemon is `edge_runtime.daemon.EdgeDaemon`, its command
`capnn-edge`.
"""

from __future__ import annotations

from edge_runtime.classifier import EdgeClassifier, Prediction
from edge_runtime.errors import (
    CloudError,
    ConfigError,
    DigestError,
    EdgeError,
    InputError,
    MessageError,
    ModelFileError,
    PlanError,
    SignatureError,
    UnknownKeyError,
)
from edge_runtime.interpreter import LoadedModel
from edge_runtime.monitor import UsageMonitor
from edge_runtime.preprocessing import Preprocessing
from edge_runtime.signing import SignedManifest, TrustedKeys
from edge_runtime.wire import ClassFigures, Manifest, PersonalizeRequest

__all__ = [
    "ClassFigures",
    "CloudError",
    "ConfigError",
    "DigestError",
    "EdgeClassifier",
    "EdgeError",
    "InputError",
    "LoadedModel",
    "Manifest",
    "MessageError",
    "ModelFileError",
    "PersonalizeRequest",
    "PlanError",
    "Prediction",
    "Preprocessing",
    "SignatureError",
    "SignedManifest",
    "TrustedKeys",
    "UnknownKeyError",
    "UsageMonitor",
]
