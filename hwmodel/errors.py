"""What can go wrong in the hardware model.

HardwareError
└── AcceleratorError    (ValueError)   an accelerator that cannot exist

A model file that cannot be read, or whose operators do not fit their tensors, raises
`edge_runtime.errors.ModelFileError`.
"""

from __future__ import annotations

__all__ = ["AcceleratorError", "HardwareError"]


class HardwareError(Exception):
    """Base of every error that this package raises on purpose."""


class AcceleratorError(HardwareError, ValueError):
    """A field of an accelerator is out of its range."""
