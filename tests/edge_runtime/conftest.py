"""A base model, two cuts of it, and a cloud that serves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.edge_runtime.cloud_simulator import CloudSimulator
from tests.edge_runtime.tiny_models import CLASSES, EAST, WEST, describe, measured, tflite_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_runtime.slots import StoredModel


@pytest.fixture(scope="session")
def base_file() -> bytes:
    return tflite_file(CLASSES)


@pytest.fixture(scope="session")
def west_file() -> bytes:
    return tflite_file(WEST)


@pytest.fixture(scope="session")
def east_file() -> bytes:
    return tflite_file(EAST)


@pytest.fixture(scope="session")
def base(base_file: bytes) -> StoredModel:
    return measured(describe(base_file))


@pytest.fixture(scope="session")
def west(base_file: bytes, west_file: bytes) -> StoredModel:
    return measured(describe(west_file, base=base_file, usage=dict.fromkeys(WEST, 0.5)))


@pytest.fixture(scope="session")
def east(base_file: bytes, east_file: bytes) -> StoredModel:
    return measured(describe(east_file, base=base_file, usage=dict.fromkeys(EAST, 0.5)))


@pytest.fixture
def cloud(base: StoredModel, west: StoredModel, east: StoredModel) -> Iterator[CloudSimulator]:
    with CloudSimulator(base, [west, east]) as simulator:
        yield simulator


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"
