from __future__ import annotations

import os
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


class PowerCutError(BaseException):
    """Ends an installation at a chosen step."""


def test_a_power_cut_at_any_step_of_an_installation_leaves_a_verified_model(
    state: Path, base: StoredModel, west: StoredModel, east: StoredModel, monkeypatch: pytest.MonkeyPatch
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    fsync, replace = os.fsync, os.replace
    steps = 0

    def cut_power_at(last: int) -> None:
        nonlocal steps
        steps = 0

        def counted(step):
            def run(*arguments):
                nonlocal steps
                steps += 1
                if steps > last:
                    raise PowerCutError
                return step(*arguments)

            return run

        monkeypatch.setattr(os, "fsync", counted(fsync))
        monkeypatch.setattr(os, "replace", counted(replace))

    outcomes = []
    last = 0
    while not outcomes or outcomes[-1] != "done":
        cut_power_at(last)
        try:
            slots.install_cut(east, "b")
            outcomes.append("done")
        except PowerCutError:
            outcomes.append("cut")
        monkeypatch.undo()
        assert served(state) in {west.manifest.digest, east.manifest.digest}
        if outcomes[-1] == "cut" and served(state) == east.manifest.digest:
            outcomes[-1] = "cut, but the pointer was replaced"
        last += 1

    assert outcomes.count("cut") >= 6
    assert served(state) == east.manifest.digest


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
