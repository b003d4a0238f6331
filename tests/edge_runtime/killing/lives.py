"""What a device does to its state folder, by the product's own code, and what may serve if it is ended meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.messages import pack, unpack
from edge_runtime.serving import load_models
from edge_runtime.slots import ModelSlots, StoredModel
from edge_runtime.wire import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["LIVES", "NAMES", "Life", "read_models", "served", "write_models"]

NAMES = ("base", "other base", "west", "east")
PROBATION = {"former": {"images": 300, "doubtful": 9, "seconds": 0.01, "relative_size": 1.0}, "images": 0}

Stored = dict[str, StoredModel]


@dataclass(frozen=True, slots=True)
class Life:
    """A stretch of a device's life.

    Attributes
    ----------
    before
        Makes the state folder that it begins with.
    steps
        What it does; may be repeated after it was ended.
    may_serve
        Names of the models that may serve whenever it is ended; None: there need not be one yet.
    serves
        Name of the model that serves afterwards.
    """

    before: Callable[[ModelSlots, Stored], object]
    steps: Callable[[ModelSlots, Stored], object]
    may_serve: tuple[str | None, ...]
    serves: str


def nothing(_slots: ModelSlots, _models: Stored) -> None:
    pass


def with_base(slots: ModelSlots, models: Stored) -> None:
    slots.install_base(models["base"])


def with_west(slots: ModelSlots, models: Stored) -> None:
    with_base(slots, models)
    slots.install_cut(models["west"], "a")


def with_east_on_probation(slots: ModelSlots, models: Stored) -> None:
    with_west(slots, models)
    slots.install_cut(models["east"], "b", probation=PROBATION)


def with_east_given_up(slots: ModelSlots, models: Stored) -> None:
    with_east_on_probation(slots, models)
    slots.roll_back(models["east"].manifest.digest, "it is slow")


def take(name: str, slot: str) -> Callable[[ModelSlots, Stored], None]:
    return lambda slots, models: slots.install_cut(models[name], slot, probation=PROBATION)


def keep_east(slots: ModelSlots, models: Stored) -> None:
    digest = models["east"].manifest.digest
    for images in (50, 100):
        slots.save_probation(digest, {**PROBATION, "images": images})
    slots.save_probation(digest, {**PROBATION, "images": 150}, stopped=True)
    slots.end_probation()


def give_up(name: str) -> Callable[[ModelSlots, Stored], None]:
    return lambda slots, models: slots.roll_back(models[name].manifest.digest, "it is slow")


def start_often(slots: ModelSlots, _models: Stored) -> None:
    for _ in range(5):
        slots.start()


LIVES = {
    "first base": Life(nothing, with_base, (None, "base"), "base"),
    "another base": Life(
        with_base,
        lambda slots, models: slots.install_base(models["other base"]),
        ("base", "other base"),
        "other base",
    ),
    "another base below a cut": Life(
        with_west,
        lambda slots, models: slots.install_base(models["other base"]),
        ("west", "other base"),
        "other base",
    ),
    "first cut": Life(with_base, take("west", "a"), ("base", "west"), "west"),
    "next cut": Life(with_west, take("east", "b"), ("west", "east"), "east"),
    "cut in place of one that was given up": Life(with_east_given_up, take("west", "b"), ("west",), "west"),
    "probation that ends well": Life(with_east_on_probation, keep_east, ("east",), "east"),
    "probation that ends badly": Life(with_east_on_probation, give_up("east"), ("east", "west"), "west"),
    "probation of the first cut that ends badly": Life(
        lambda slots, models: (with_base(slots, models), take("west", "a")(slots, models)),
        give_up("west"),
        ("west", "base"),
        "base",
    ),
    "starts that all end early": Life(with_east_on_probation, start_often, ("east", "west"), "west"),
}


def write_models(folder: Path, models: Stored) -> None:
    """Write models for another process."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        fields = {"manifest": model.manifest.to_fields(), "content": bytes(model.content)}
        (folder / name).write_bytes(pack(fields))


def read_models(folder: Path) -> Stored:
    """Read what `write_models` wrote."""
    models = {}
    for name in NAMES:
        fields = unpack((folder / name).read_bytes())
        models[name] = StoredModel(Manifest.from_fields(fields["manifest"]), fields["content"])
    return models


def served(state: Path, models: Stored) -> str | None:
    """Return the name of the model that a restart serves from `state`, after it has classified a picture right."""
    import numpy as np

    from edge_runtime.classifier import EdgeClassifier

    slots = ModelSlots(state)
    loaded, _ = load_models(slots)
    if loaded.active is None:
        return None
    digest = loaded.active.manifest.digest
    (name,) = [name for name, model in models.items() if model.manifest.digest == digest]
    expected = {"base": "north-west", "west": "north-west", "east": "north-east", "other base": "north-west"}[name]
    picture = np.full((8, 8, 1), 20, dtype=np.uint8)
    picture[:4, 4 * (expected == "north-east") :][:, :4] = 220
    prediction = EdgeClassifier(loaded).classify_pixels(picture)
    assert (prediction.label, prediction.model) == (expected, digest)
    return name
