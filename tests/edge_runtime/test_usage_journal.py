from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.usage_change import WINDOW
from edge_runtime.usage_journal import Kept, UsageJournal

if TYPE_CHECKING:
    from pathlib import Path

BASE, OTHER = "0" * 64, "1" * 64
CLASSES = 4


def answer(number: int) -> bytes:
    return number.to_bytes(CLASSES, "big")


def write(path: Path, numbers: range, base: str = BASE) -> None:
    with closing(UsageJournal(path)) as journal:
        journal.open(base, CLASSES)
        for number in numbers:
            journal.append(answer(number), number + 1)


def read(path: Path, base: str = BASE) -> Kept:
    with closing(UsageJournal(path)) as journal:
        return journal.open(base, CLASSES)


def test_answers_are_there_after_a_restart(tmp_path: Path):
    path = tmp_path / "usage.journal"
    assert read(path) == Kept()

    write(path, range(3))

    assert read(path) == Kept((answer(0), answer(1), answer(2)), counted=3)


def test_a_restart_goes_on_where_the_last_one_ended(tmp_path: Path):
    path = tmp_path / "usage.journal"
    write(path, range(3))
    with closing(UsageJournal(path)) as journal:
        journal.open(BASE, CLASSES)
        journal.append(answer(9), 4)

    assert read(path).answers == (answer(0), answer(1), answer(2), answer(9))


def test_the_newest_take_the_place_of_the_oldest_and_the_file_does_not_grow(tmp_path: Path):
    path = tmp_path / "usage.journal"
    write(path, range(10))
    size = path.stat().st_size

    write(path, range(10, 3 * WINDOW))
    write(path, range(3 * WINDOW, 3 * WINDOW + 10))

    assert path.stat().st_size == size
    assert read(path).answers == tuple(answer(number) for number in range(2 * WINDOW + 10, 3 * WINDOW + 10))


def test_answers_of_another_base_are_never_mixed_in(tmp_path: Path):
    path = tmp_path / "usage.journal"
    write(path, range(5))

    assert read(path, OTHER) == Kept()
    write(path, range(100, 102), base=OTHER)

    assert read(path, OTHER).answers == (answer(100), answer(101))
    assert read(path) == Kept()


def test_a_base_of_another_number_of_classes_starts_over(tmp_path: Path):
    path = tmp_path / "usage.journal"
    write(path, range(5))

    with closing(UsageJournal(path)) as journal:
        assert journal.open(BASE, CLASSES + 1) == Kept()
        journal.append(b"five!", 1)
        assert journal.open(BASE, CLASSES + 1).answers == (b"five!",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "usage.journal"
    write(path, range(WINDOW + 50))
    return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_the_answer_that_it_is_in(tmp_path: Path, whole: bytes, place: int, bit: int):
    path = tmp_path / "usage.journal"
    content = bytearray(whole)
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)

    kept = read(path)

    expected = [answer(number) for number in range(50, WINDOW + 50)]
    assert [one for one in expected if one in kept.answers] == list(kept.answers)  # nothing made up, none out of order
    assert "damaged" in kept.damage
    assert len(kept.answers) in (0, WINDOW - 1)
    assert kept.answers or "counted anew" in kept.damage


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(length=st.integers(0, 10**9))
def test_a_shortened_file_costs_the_answers_that_are_missing(tmp_path: Path, whole: bytes, length: int):
    path = tmp_path / "usage.journal"
    length %= len(whole)
    path.write_bytes(whole[:length])

    kept = read(path)

    expected = {answer(number) for number in range(50, WINDOW + 50)}
    assert set(kept.answers) <= expected
    assert len(kept.answers) >= (WINDOW * length // len(whole)) - 5
    assert "damaged" in kept.damage
    write(path, range(7000, 7003))
    assert read(path).answers[-3:] == (answer(7000), answer(7001), answer(7002))


def test_any_bytes_are_no_journal(tmp_path: Path):
    path = tmp_path / "usage.journal"
    path.write_bytes(os.urandom(5000))

    assert "counted anew" in read(path).damage


WRITER = """
import sys
from pathlib import Path
from edge_runtime.usage_journal import UsageJournal
journal = UsageJournal(Path(sys.argv[1]))
journal.open("0" * 64, 4)
for number in range(10**9):
    journal.append((number % 2**32).to_bytes(4, "big"), number)
    if number % 1000 == 0:
        print(number, flush=True)
"""


def test_a_killed_process_leaves_only_whole_answers_in_order(tmp_path: Path):
    path = tmp_path / "usage.journal"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            assert writer.stdout is not None
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)

    kept = read(path)

    numbers = [int.from_bytes(one, "big") for one in kept.answers]
    assert numbers
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= WINDOW - 1 or numbers[0] == 0  # at most the slot that was being written is torn


def test_what_is_pending_is_on_the_disk_without_being_asked_for(tmp_path: Path):
    path = tmp_path / "usage.journal"
    journal = UsageJournal(path)
    journal.open(BASE, CLASSES)
    journal.append(answer(1), 1)

    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert read(path).answers == (answer(1),)
    journal.close()


def test_a_disk_that_cannot_be_written_is_said_once_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "gone"
    journal = UsageJournal(folder / "usage.journal")
    journal.open(BASE, CLASSES)
    for number in range(3):
        journal.append(answer(number), number)
        journal.flush()
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "usage is kept in memory" in caplog.text

    folder.mkdir()
    journal.close()

    assert read(folder / "usage.journal").answers == (answer(0), answer(1), answer(2))
