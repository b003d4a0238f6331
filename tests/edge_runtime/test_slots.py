from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.errors import ConfigError, DigestError
from edge_runtime.serving import load_models
from edge_runtime.slots import ModelSlots, StoredModel
from tests.edge_runtime.tiny_models import describe

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("model.tflite", "manifest.msgpack")


def served(state: Path) -> str | None:
    """Return the digest of the model that a device would serve from `state` after a restart."""
    models, _ = load_models(ModelSlots(state))
    return None if models.active is None else models.active.manifest.digest


def test_a_stored_model_reads_back_as_it_was(state: Path, base: StoredModel, west: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")

    assert ModelSlots(state).read("base") == base
    assert ModelSlots(state).read("a") == west
    assert ModelSlots(state).read("b") is None
    assert ModelSlots(state).cut_slots() == ("a", "b")


def test_slots_are_used_in_turn(state: Path):
    slots = ModelSlots(state)

    assert [slots.free_slot(serving) for serving in (None, "a", "b")] == ["a", "b", "a"]


def test_without_a_pointer_the_base_serves(state: Path, base: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)

    assert slots.cut_slots() == ()
    assert served(state) == base.manifest.digest


@pytest.mark.parametrize("damaged", FILES)
def test_a_damaged_active_slot_gives_way_to_the_other_then_to_the_base(
    state: Path, base: StoredModel, west: StoredModel, east: StoredModel, damaged: str
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    slots.install_cut(east, "b")
    assert served(state) == east.manifest.digest

    (state / "b" / damaged).write_bytes(b"damaged")
    assert served(state) == west.manifest.digest

    (state / "a" / damaged).unlink()
    assert served(state) == base.manifest.digest

    (state / "base" / damaged).write_bytes(b"")
    models, damage = load_models(ModelSlots(state))
    assert models.active is None
    assert len(damage) == 3
    assert all("\n" not in line for line in damage)


def test_a_damaged_pointer_still_finds_a_cut(state: Path, base: StoredModel, west: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    (state / "active").write_bytes(b"\xff\x00")

    assert served(state) == west.manifest.digest


def test_a_cut_of_another_base_is_not_used(state: Path, base: StoredModel, west: StoredModel, east_file: bytes):
    slots = ModelSlots(state)
    slots.install_base(describe(east_file))
    slots.install_cut(west, "a")

    models, damage = load_models(slots)

    assert models.cut is None
    assert "was cut from another base" in damage[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_is_ever_read(state: Path, west: StoredModel, name: str, position: float, bit: int):
    ModelSlots(state).install_cut(west, "a")
    file = state / "a" / name
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    file.write_bytes(content)

    with pytest.raises(DigestError, match=str(state / "a")):
        ModelSlots(state).read("a")


def test_a_roll_back_returns_to_the_cut_before(state: Path, base: StoredModel, west: StoredModel, east: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    slots.install_cut(east, "b", probation={"images": 0})
    assert served(state) == east.manifest.digest
    assert slots.probation(east.manifest.digest) == {"images": 0}
    assert slots.probation(west.manifest.digest) is None

    slots.roll_back(east.manifest.digest, "it is slow")

    assert served(state) == west.manifest.digest
    assert slots.probation(east.manifest.digest) is None
    assert slots.rejected() == {east.manifest.digest: "it is slow"}
    # Nor is it used where nothing else is left but the base.
    (state / "a" / "model.tflite").unlink()
    assert served(state) == base.manifest.digest


def test_a_roll_back_of_the_first_cut_returns_to_the_base(state: Path, base: StoredModel, west: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a", probation={})
    slots.roll_back(west.manifest.digest, "it fails")

    assert served(state) == base.manifest.digest
    assert slots.cut_slots() == ()


def test_a_cut_can_be_given_up_after_its_probation_too(state: Path, base: StoredModel, west: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a", probation={})
    slots.end_probation()
    slots.roll_back(west.manifest.digest, "it fails")

    assert served(state) == base.manifest.digest


def test_a_roll_back_that_was_cut_off_before_the_pointer_is_one_all_the_same(
    state: Path, base: StoredModel, west: StoredModel, east: StoredModel
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    slots.install_cut(east, "b", probation={})
    pointer = (state / "active").read_bytes()
    slots.roll_back(east.manifest.digest, "it is slow")
    (state / "active").write_bytes(pointer)

    assert served(state) == west.manifest.digest


def test_giving_up_a_cut_twice_or_one_that_does_not_serve_moves_nothing_else(
    state: Path, base: StoredModel, west: StoredModel, east: StoredModel
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    slots.install_cut(east, "b", probation={})
    for _ in range(2):
        slots.roll_back(east.manifest.digest, "it is slow")

    assert served(state) == west.manifest.digest
    assert (state / "active").read_text() == "a\n"


def test_progress_of_a_probation_is_kept_over_a_restart(state: Path, base: StoredModel, west: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a", probation={"images": 0})
    slots.save_probation(west.manifest.digest, {"images": 70})

    again = ModelSlots(state)
    assert again.start() is None
    assert again.probation(west.manifest.digest) == {"images": 70}
    again.end_probation()
    assert ModelSlots(state).probation(west.manifest.digest) is None
    assert served(state) == west.manifest.digest


def test_a_cut_that_ends_the_process_three_times_on_probation_is_not_loaded_again(
    state: Path, base: StoredModel, west: StoredModel
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a", probation={"images": 0})

    assert [ModelSlots(state).start() for _ in range(3)] == [None, None, None]
    assert ModelSlots(state).start() == "the process ended 3 times while it was on probation"

    assert served(state) == base.manifest.digest
    assert ModelSlots(state).start() is None


def test_clean_ends_do_not_count_against_a_cut(state: Path, base: StoredModel, west: StoredModel):
    ModelSlots(state).install_cut(west, "a", probation={"images": 0})

    for images in range(10):
        slots = ModelSlots(state)
        assert slots.start() is None
        slots.save_probation(west.manifest.digest, {"images": images}, stopped=True)


def test_what_was_kept_of_another_cuts_probation_means_nothing(
    state: Path, base: StoredModel, west: StoredModel, east: StoredModel
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a", probation={})
    slots.install_cut(east, "b")

    assert slots.probation(west.manifest.digest) is None
    assert [ModelSlots(state).start() for _ in range(5)] == [None] * 5
    assert served(state) == east.manifest.digest


@pytest.mark.parametrize("name", ["probation.msgpack", "rejected.msgpack"])
@pytest.mark.parametrize("damage", [b"", b"damaged", b"\x80"])
def test_damaged_records_cost_what_they_say_and_nothing_else(
    state: Path, base: StoredModel, west: StoredModel, east: StoredModel, name: str, damage: bytes
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a", probation={})
    slots.roll_back(west.manifest.digest, "it is slow")
    slots.install_cut(east, "a", probation={})
    (state / name).write_bytes(damage)

    assert slots.start() is None
    assert served(state) == east.manifest.digest
    slots.roll_back(east.manifest.digest, "it is slow")
    assert served(state) == base.manifest.digest


def test_rejections_are_remembered_up_to_a_bound(state: Path):
    slots = ModelSlots(state)
    state.mkdir()
    for number in range(70):
        slots.roll_back(f"{number:064d}", "it is slow")

    assert list(slots.rejected()) == [f"{number:064d}" for number in range(6, 70)]


def test_a_disk_that_cannot_be_written_leaves_the_former_model(state: Path, base: StoredModel, west: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)
    (state / "a").write_text("a file where a folder should be")

    with pytest.raises(OSError, match="a"):
        slots.install_cut(west, "a")

    assert served(state) == base.manifest.digest


def test_a_state_folder_has_one_writer(state: Path):
    first, second = ModelSlots(state), ModelSlots(state)
    first.lock()

    with pytest.raises(ConfigError, match="in use by another"):
        second.lock()

    first.unlock()
    second.lock()
    second.unlock()


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file/state: cannot be used as state folder"):
        ModelSlots(tmp_path / "file" / "state").lock()
