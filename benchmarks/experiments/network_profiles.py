"""Profiles of networks in a work folder: made once, opened afterwards.

Each network has a folder `networks/NAME` with `files` (the network itself, `model.keras`, and its `base.tflite`),
and a profile for each depth (`profile-6`, `profile-all`), with the ending `-no-gradients` where it was made without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.captor import measure_preferences
from cloud_pruner.conversion import convert
from cloud_pruner.images import split_per_class
from cloud_pruner.profile import Profile
from cloud_pruner.profiling import ProfileSettings, build_profile
from edge_runtime.durable import replaced_folder
from edge_runtime.flatmodel import BaseModel, normalize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_pruner.images import ImageSet
    from cloud_pruner.progress import Progress
    from edge_runtime.preprocessing import Preprocessing

__all__ = [
    "PROFILE_IMAGES",
    "Source",
    "find_preferences",
    "image_counts",
    "network_folder",
    "open_profile",
    "preferences_file",
    "profile_folder",
]

PROFILE_IMAGES: Final = 200
"""Training images a class that firing rates, gradients and folds are measured on (CAP'NN, section V: 200)."""


_PREFERENCE_IMAGES: Final = 12
_PREFERENCES: Final = "preferences.npz"


@dataclass(frozen=True, slots=True)
class Source:
    """What a profile is made of.

    Attributes
    ----------
    build
        Gives the trained Keras model.
    preprocessing
        What it takes.
    train_images, unseen_images
        Give the images that it was trained on, and others.
    """

    build: Callable[[], Any]
    preprocessing: Preprocessing
    train_images: Callable[[], ImageSet]
    unseen_images: Callable[[], ImageSet]


def image_counts(unseen: int) -> dict[str, int]:
    """Return how many of so many unseen images a class are to select, to certify and to report on.

    The report takes enough for an accuracy of a class within two points or so, the certificate as many as can be had.
    """
    if unseen >= 1500:
        return {"select": 300, "certify": 800, "report": 400}
    if unseen >= 1000:
        return {"select": 200, "certify": 400, "report": 400}
    select, certify = unseen // 2, unseen // 10
    return {"select": select, "certify": certify, "report": unseen - select - certify}


def network_folder(work: Path, name: str) -> Path:
    """Return where everything made of a network lies."""
    return work / "networks" / name


def profile_folder(work: Path, name: str, depth: int | None, *, gradients: bool) -> Path:
    """Return where a profile lies, or will."""
    ending = "" if gradients else "-no-gradients"
    return network_folder(work, name) / f"profile-{'all' if depth is None else depth}{ending}"


def open_profile(
    work: Path, name: str, depth: int | None, *, gradients: bool, source: Source, progress: Progress
) -> Profile:
    """Open a profile, made now where there is none."""
    folder = profile_folder(work, name, depth, gradients=gradients)
    if folder.exists():
        return Profile.open(folder)
    files = _files(work, name, source, progress)
    unseen, trained_on = source.unseen_images(), source.train_images()
    smallest = int(np.bincount(unseen.labels, minlength=len(unseen.classes)).min())
    fewest = int(np.bincount(trained_on.labels, minlength=len(trained_on.classes)).min())
    settings = ProfileSettings(
        depth=depth,
        images={"profile": min(PROFILE_IMAGES, fewest), **image_counts(smallest)},
        keras=files / "model.keras" if gradients else None,
    )
    return build_profile(
        (files / "base.tflite").read_bytes(),
        trained_on,
        source.preprocessing,
        folder,
        unseen=unseen,
        settings=settings,
        progress=lambda what, done, total: progress(f"{name}: {what}", done, total),
        name=name,
    )


def find_preferences(work: Path, name: str, source: Source, progress: Progress) -> None:
    """Measure what the filters of a network prefer (CAPTOR), where that was not done."""
    folder = network_folder(work, name)
    if (folder / _PREFERENCES).exists():
        return
    files = _files(work, name, source, progress)
    images = source.train_images()
    chosen = split_per_class(images.labels, {"looked at": _PREFERENCE_IMAGES}, images.classes)["looked at"]
    measure_preferences(
        files / "model.keras",
        BaseModel(normalize((files / "base.tflite").read_bytes(), name), name=name),
        source.preprocessing.apply(images.pixels[chosen]),
        images.labels[chosen],
        lambda what, done, total: progress(f"{name}: {what}", done, total),
    ).save(folder / _PREFERENCES)


def preferences_file(profile: Path) -> Path:
    """Return where the preferences lie that go with the profile in a folder."""
    return profile.parent / _PREFERENCES


def _files(work: Path, name: str, source: Source, progress: Progress) -> Path:
    """Return the folder with the network and its `.tflite`, made now where there is none."""
    files = network_folder(work, name) / "files"
    if not files.exists():
        progress(f"{name}: conversion", 0, 1)
        with replaced_folder(files) as scratch:
            source.build().save(scratch / "model.keras")
            images = source.train_images()
            convert(scratch / "model.keras", scratch / "base.tflite", images=images, preprocessing=source.preprocessing)
    return files
