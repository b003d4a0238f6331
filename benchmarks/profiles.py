"""Profiles of the reference networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_pruner.conversion import convert
from cloud_pruner.profiling import build_profile

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from cloud_pruner.profile import Profile
    from cloud_pruner.profiling import ProfileSettings

__all__ = ["profiled"]


def profiled(network: ModuleType, folder: Path, settings: ProfileSettings) -> Profile:
    """Return the profile of a reference network, made in `folder` as `profile`.

    Beside it are the network itself, `model.keras`, and what was made of it, `base.tflite`.
    """
    network.build().save(folder / "model.keras")
    unseen = network.unseen_images()
    convert(folder / "model.keras", folder / "base.tflite", images=unseen, preprocessing=network.PREPROCESSING)
    return build_profile(
        (folder / "base.tflite").read_bytes(),
        network.train_images(),
        network.PREPROCESSING,
        folder / "profile",
        unseen=unseen,
        settings=settings,
    )
