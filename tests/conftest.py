"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest


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


@pytest.fixture(scope="session")
def digits_network(tmp_path_factory):
    from tests.support.digits import train_digits_network

    return train_digits_network(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def digits_profile(digits_network, tmp_path_factory):
    """A profile of all layers of the digits network: 90 profile, 40 select, 20 certify and 20 report images a class."""
    from cloud_pruner.profiling import ProfileSettings, build_profile
    from tests.support.digits import PREPROCESSING

    return build_profile(
        digits_network.tflite.read_bytes(),
        digits_network.trained_on,
        PREPROCESSING,
        tmp_path_factory.mktemp("profiles") / "digits",
        unseen=digits_network.unseen,
        settings=ProfileSettings(depth=None, images={"select": 40, "certify": 20, "report": 20}),
    )
