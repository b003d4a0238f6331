"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.once import made_once, share_in


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> None:
    """A shell starts background jobs with SIGINT ignored, and the commands under test would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def capnn_data() -> Path:
    """The reference data (images, trained networks), where there is any."""
    folder = os.environ.get("CAPNN_DATA")
    if not folder:
        pytest.skip("CAPNN_DATA is not set: no reference images and networks here")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def processes_share(tmp_path_factory) -> None:
    """Let all processes of this run of the tests, and no other run, share what is made once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made-once"
    folder.mkdir(exist_ok=True)
    share_in(folder)


@pytest.fixture(scope="session")
def digits_network():
    from tests.support.digits import DigitsNetwork, train_digits_network

    return DigitsNetwork.in_folder(made_once("digits", train_digits_network))


@pytest.fixture(scope="session")
def digits_profile(digits_network):
    """A profile of all layers of the digits network: 90 profile, 40 select, 20 certify and 20 report images a class."""
    return digits_network.profile("digits-profile")


@pytest.fixture(scope="session")
def cifar100_profile(capnn_data):
    """A profile of the last layers of the network for CIFAR-100: 40 profile, 50 select, 49 report images a class."""
    from benchmarks.data import load_cifar
    from benchmarks.networks import cifar100_vgg_small as network
    from cloud_pruner.conversion import convert
    from cloud_pruner.images import ImageSet
    from cloud_pruner.profile import Profile
    from cloud_pruner.profiling import ProfileSettings, build_profile

    def make(folder):
        network.build().save(folder / "model.keras")
        unseen = network.unseen_images()
        convert(folder / "model.keras", folder / "base.tflite", images=unseen, preprocessing=network.PREPROCESSING)
        build_profile(
            (folder / "base.tflite").read_bytes(),
            ImageSet(*load_cifar("cifar100_train", 5)),
            network.PREPROCESSING,
            folder / "profile",
            unseen=unseen,
            settings=ProfileSettings(images={"profile": 40, "select": 50, "certify": 1, "report": 49}),
        )

    return Profile.open(made_once("cifar100", make) / "profile")
