"""What can go wrong in the hardware model.

HardwareError                                  a batch, a sweep or a layer that cannot be
├── AcceleratorError     (ValueError)          an accelerator that cannot exist, or a file that describes none
└── MissingExtraError    (ImportError)         plotting without the packages that it takes

A model file that cannot be read, or whose operators do not fit their tensors, raises
`edge_runtime.errors.ModelFileError`.
"""

from __future__ import annotations

__all__ = ["AcceleratorError", "HardwareError", "MissingExtraError"]


class HardwareError(Exception):
    """Base of every error that this package raises on purpose."""


class AcceleratorError(HardwareError, ValueError):
    """A field of an accelerator is out of its range, or a file does not describe one."""


class MissingExtraError(HardwareError, ImportError):
    """A package of an extra is not installed; the message names the extra."""
