"""Measures a trained classifier once and cuts it down, without retraining, for each user's classes."""

from __future__ import annotations

from cloud_pruner.errors import (
    ConversionError,
    ImageDataError,
    MissingExtraError,
    ProfileError,
    PrunerError,
    RequestError,
)

__all__ = [
    "ConversionError",
    "ImageDataError",
    "MissingExtraError",
    "ProfileError",
    "PrunerError",
    "RequestError",
]
