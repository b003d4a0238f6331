"""A lab whose networks are small ones for the digits: experiments run on them in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.experiments.lab import Lab, Settings
from tests.support.digits import PREPROCESSING
from tests.support.once import made_once

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_pruner.images import ImageSet
    from edge_runtime.preprocessing import Preprocessing
    from tests.support.digits import DigitsNetwork


@dataclass(frozen=True)
class DigitsReference:
    """What a lab needs to know of a network."""

    name: str
    network: DigitsNetwork
    there: bool = True
    title: str = "digits network"
    note: str = "A small network for the digits."
    preprocessing: Preprocessing = PREPROCESSING

    def build(self) -> Any:
        import keras

        return keras.models.load_model(self.network.keras)

    def train_images(self) -> ImageSet:
        return self.network.trained_on

    def unseen_images(self) -> ImageSet:
        return self.network.unseen

    def available(self) -> bool:
        return self.there

    def why_not(self) -> str:
        return "" if self.there else "its weights are not here"


def with_profile(network: DigitsNetwork, work: Path, names: tuple[str, ...] = ("digits",)) -> Path:
    """Give a work folder the networks' profiles, which one process of the run makes once."""

    def make(folder: Path) -> None:
        lab = Lab(folder, references={"digits": DigitsReference("digits", network)})
        lab.profile("digits")
        lab.profile("digits", depth=6)

    made = made_once("digits-lab", make)
    (work / "networks").mkdir(parents=True)
    for name in names:
        (work / "networks" / name).symlink_to(made / "networks" / "digits")
    return work


def digits_lab(network: DigitsNetwork, work: Path, **settings: Any) -> Lab:
    """Return a lab with the network `digits`, whose profiles are there."""
    references = {
        "digits": DigitsReference("digits", network),
        "absent": DigitsReference("absent", network, there=False),
    }
    return Lab(with_profile(network, work), Settings(**settings), references=references)
