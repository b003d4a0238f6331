"""A device is ended by SIGKILL at every step that it takes on the disk, and loses its power after every one.

For minutes or hours of it: `python -m tests.edge_runtime.killing --seconds 600`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.edge_runtime.killing.lives import LIVES
from tests.edge_runtime.killing.run import run
from tests.edge_runtime.tiny_models import CLASSES, describe, tflite_file

if TYPE_CHECKING:
    from pathlib import Path

    from edge_runtime.slots import StoredModel
    from tests.edge_runtime.cloud_simulator import CloudSimulator


@pytest.fixture(scope="module")
def models(base: StoredModel, west: StoredModel, east: StoredModel) -> dict[str, StoredModel]:
    other = describe(tflite_file(CLASSES, softmax=False))
    return {"base": base, "other base": other, "west": west, "east": east}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, models: dict[str, StoredModel]) -> dict[str, Any]:
    found = run(tmp_path_factory.mktemp("killing"), models)
    if found is None:
        pytest.skip("no C compiler (cc) is installed: the counting library cannot be made")
    return found


def test_whenever_it_is_ended_a_verified_model_serves_and_the_update_can_be_made_again(result: dict[str, Any]):
    assert result["wrong"] == [], "\n".join(result["said"])


def test_a_whole_daemon_that_is_ended_again_and_again_while_it_updates_comes_to_its_end(
    tmp_path: Path, cloud: CloudSimulator, models: dict[str, StoredModel]
):
    found = run(tmp_path, models, daemon_kills=(6, cloud.url, cloud.key.public))

    if found is None:
        pytest.skip("no C compiler (cc) is installed: the counting library cannot be made")
    assert found["wrong"] == [], "\n".join(found["said"])
    assert found["kills"]["daemon"] >= 2
    assert found["power_cuts"]["daemon"] >= 20


@pytest.mark.parametrize("life", LIVES)
def test_every_step_of_a_life_was_its_last_once(result: dict[str, Any], life: str):
    # Each durable write is five steps or more: a new file, its content, a sync, a rename, a sync of the folder.
    assert result["kills"][life] >= 10
    assert result["power_cuts"][life] >= 2 * 10


@pytest.mark.parametrize("life", ["first cut", "next cut", "another base", "probation that ends badly"])
def test_kills_fall_on_both_sides_of_the_step_that_counts(result: dict[str, Any], life: str):
    assert set(result["served"][life]) == set(LIVES[life].may_serve)
