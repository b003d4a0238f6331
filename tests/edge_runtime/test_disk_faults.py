"""Real faults of the disk below a device's state folder: full, read-only, and with bits that flip."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge_runtime.digests import digest_of
from edge_runtime.serving import load_models
from edge_runtime.slots import ModelSlots, StoredModel
from tests.edge_runtime.test_slots import served
from tests.support.disks import PAGE, leave, small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROBATION = {"images": 0}


def larger(stored: StoredModel, size: int) -> StoredModel:
    """Return the model with bytes after its end that no interpreter looks at."""
    content = bytes(stored.content) + bytes(size - len(stored.content))
    return StoredModel(replace(stored.manifest, digest=digest_of(content), bytes=size), content)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    with small_disk(tmp_path / "disk", "256k") as folder:
        yield folder


@pytest.fixture
def slots(disk: Path, base: StoredModel, west: StoredModel) -> ModelSlots:
    """A device on that disk which serves the cut for the west."""
    slots = ModelSlots(disk / "state")
    slots.install_base(base)
    slots.install_cut(west, "a")
    return slots


def test_a_disk_that_is_full_at_any_point_costs_the_update_and_no_more(
    disk: Path, slots: ModelSlots, west: StoredModel, east: StoredModel
):
    update = larger(east, 10 * PAGE)
    outcomes = []
    for pages in range(20):
        leave(disk, pages)
        try:
            slots.install_cut(update, "b", probation=PROBATION)
        except OSError as error:
            outcomes.append(error.errno)
            assert served(slots.folder) == west.manifest.digest
            assert list(slots.folder.rglob("*.partial")) == []
        else:
            outcomes.append(0)
            assert served(slots.folder) == update.manifest.digest
            break

    assert outcomes == [errno.ENOSPC] * (len(outcomes) - 1) + [0]
    assert len(outcomes) > 10


def test_a_full_disk_does_not_stop_a_start_and_a_roll_back_waits_for_room(
    disk: Path, slots: ModelSlots, west: StoredModel, east: StoredModel
):
    slots.install_cut(east, "b", probation=PROBATION)
    leave(disk, 0)
    assert ModelSlots(slots.folder).start() is None
    with pytest.raises(OSError, match="No space left"):
        slots.roll_back(east.manifest.digest, "it is slow")
    assert served(slots.folder) == east.manifest.digest

    (disk / "filler").unlink()
    slots.roll_back(east.manifest.digest, "it is slow")
    assert served(slots.folder) == west.manifest.digest


def test_a_disk_that_became_read_only_serves_on_after_a_restart_too(
    disk: Path, slots: ModelSlots, west: StoredModel, east: StoredModel
):
    slots.install_cut(east, "b", probation=PROBATION)
    slots.lock()
    slots.unlock()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    again = ModelSlots(slots.folder)
    again.lock()
    assert again.start() is None
    assert served(slots.folder) == east.manifest.digest
    with pytest.raises(OSError, match="Read-only"):
        again.install_cut(west, "a")
    with pytest.raises(OSError, match="Read-only"):
        again.roll_back(east.manifest.digest, "it is slow")
    assert served(slots.folder) == east.manifest.digest
    again.unlock()

    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    again.roll_back(east.manifest.digest, "it is slow")
    assert served(slots.folder) == west.manifest.digest


@pytest.mark.parametrize("damaged", ["a", "b"])
def test_with_a_bit_flipped_anywhere_in_one_slot_the_other_serves(
    state: Path, base: StoredModel, west: StoredModel, east: StoredModel, damaged: str
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    slots.install_cut(east, "b")
    # While the slot that is not active is damaged, the active one serves as if nothing had been.
    other = {"a": east, "b": west}[damaged].manifest.digest
    for file in sorted((state / damaged).iterdir()):
        whole = file.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 40)):
            content = bytearray(whole)
            content[place] ^= 1 << (place % 8)
            file.write_bytes(content)
            assert served(state) == other
        file.write_bytes(whole)
    assert served(state) == east.manifest.digest


def test_with_everything_lost_the_device_says_that_it_cannot_serve(
    state: Path, base: StoredModel, west: StoredModel, east: StoredModel
):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")
    slots.install_cut(east, "b")
    for slot in ("a", "b"):
        (state / slot / "model.tflite").write_bytes(b"")
    assert served(state) == base.manifest.digest

    (state / "base" / "model.tflite").write_bytes(b"")
    models, damage = load_models(slots)
    assert models.active is None
    assert len(damage) == 3
    command = [sys.executable, "-m", "edge_runtime.cli", "classify", "picture.png", "--state", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "holds no verified model" in done.stderr
    assert "Traceback" not in done.stderr
