from __future__ import annotations

import pytest

from tests.hwmodel.networks import small_network, tflite


@pytest.fixture(scope="session")
def small() -> bytes:
    return tflite(small_network())


@pytest.fixture(scope="session")
def small_cut() -> bytes:
    return tflite(small_network(filters=4))
