"""Measures a trained classifier once and cuts it down, without retraining, for each user's classes.

>>> from cloud_pruner import Personalizer, Profile, PruneRequest
>>> profile = Profile.open("profile/")  # doctest: +SKIP
>>> answer = Personalizer(profile).personalize(PruneRequest({"cat": 0.7, "dog": 0.3}))  # doctest: +SKIP

Names are loaded when they are first used: most need packages of the extra `cloud`, which a device does not have.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cloud_pruner.conversion import ConversionReport, convert
    from cloud_pruner.errors import (
        ConversionError,
        ImageDataError,
        MissingExtraError,
        ProfileError,
        PrunerError,
        RequestError,
        SigningKeyError,
    )
    from cloud_pruner.images import ImageSet, load_images
    from cloud_pruner.personalize import Personalized, Personalizer
    from cloud_pruner.profile import Profile
    from cloud_pruner.profiling import ProfileSettings, build_profile
    from cloud_pruner.requests import PruneRequest
    from cloud_pruner.service import make_service
    from cloud_pruner.signer import Signer

__all__ = [
    "ConversionError",
    "ConversionReport",
    "ImageDataError",
    "ImageSet",
    "MissingExtraError",
    "Personalized",
    "Personalizer",
    "Profile",
    "ProfileError",
    "ProfileSettings",
    "PruneRequest",
    "PrunerError",
    "RequestError",
    "Signer",
    "SigningKeyError",
    "build_profile",
    "convert",
    "load_images",
    "make_service",
]

_MODULES: Final = {
    "conversion": ("ConversionReport", "convert"),
    "errors": (
        "ConversionError",
        "ImageDataError",
        "MissingExtraError",
        "ProfileError",
        "PrunerError",
        "RequestError",
        "SigningKeyError",
    ),
    "images": ("ImageSet", "load_images"),
    "personalize": ("Personalized", "Personalizer"),
    "profile": ("Profile",),
    "profiling": ("ProfileSettings", "build_profile"),
    "requests": ("PruneRequest",),
    "service": ("make_service",),
    "signer": ("Signer",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"cloud_pruner.{module}"), name)
    raise AttributeError(f"module 'cloud_pruner' has no attribute '{name}'")
