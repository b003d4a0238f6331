"""Pictures put into a folder: real files, real kills. A look is a call of `step`."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from edge_runtime.classifier import Prediction
from edge_runtime.config import WatchConfig
from edge_runtime.errors import ConfigError, InputError, ModelFileError
from edge_runtime.watched_folder import WatchedFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ANSWER = Prediction("cat", 3, 0.75, (("cat", 0.75),), "d" * 64, audited=False)


def classify(content: bytes) -> Prediction:
    """Take everything for a cat that begins as a picture does."""
    if not content.startswith(b"picture"):
        raise InputError("not a picture: send a PNG")
    return ANSWER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def watch(
    folder: Path, classify: Callable[[bytes], Prediction] = classify, *, ready: bool = True, **settings: Any
) -> WatchedFolder:
    return WatchedFolder(WatchConfig(folder, **settings), classify, lambda: ready, bytes_max=100)


def looks(watched: WatchedFolder, count: int) -> None:
    """Look at the folder so often, and do each time what has come up."""
    for _ in range(count):
        while watched.step() == 0.0:
            pass


def results(folder: Path) -> list[dict[str, Any]]:
    file = folder / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_a_picture_gets_its_line_and_is_moved(folder: Path):
    watched = watch(folder)
    (folder / "tom.png").write_bytes(b"picture of Tom")

    looks(watched, 3)

    (line,) = results(folder)
    assert (line["image"], line["bytes"], line["class"], line["confidence"]) == ("tom.png", 14, "cat", 0.75)
    assert line["at"].endswith("+00:00")
    assert names(folder) == ["results.jsonl"]
    assert (folder / "done" / "tom.png").read_bytes() == b"picture of Tom"


def test_pictures_may_be_deleted_and_results_kept_elsewhere(folder: Path, tmp_path: Path):
    watched = watch(folder, after="delete", results=tmp_path / "out" / "cats")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"picture")

    looks(watched, 3)

    assert len((tmp_path / "out" / "cats").read_text().splitlines()) == 3
    assert names(folder) == names(folder / "done") == []


def test_a_picture_that_is_still_being_written_is_left_alone(folder: Path):
    watched = watch(folder)
    with (folder / "tom.png").open("wb", buffering=0) as file:
        for piece in (b"pic", b"ture", b" of Tom"):
            file.write(piece)
            looks(watched, 1)
            assert results(folder) == []
    looks(watched, 2)

    (line,) = results(folder)
    assert line["bytes"] == 14


def test_a_slow_writer_is_given_time_and_then_answered_whole(folder: Path):
    watched = watch(folder)
    path = folder / "tom.png"
    path.write_bytes(b"pic")  # what is there so far is no picture
    looks(watched, 3)
    assert results(folder) == []
    path.write_bytes(b"picture")
    looks(watched, 3)

    assert [line["class"] for line in results(folder)] == ["cat"]


def test_what_is_no_picture_is_set_aside_with_the_reason(folder: Path):
    watched = watch(folder)
    (folder / "notes.txt").write_bytes(b"hello")
    (folder / "huge.png").write_bytes(b"picture" + bytes(100))
    (folder / "tom.png").write_bytes(b"picture")

    looks(watched, 6)

    lines = {line["image"]: line for line in results(folder)}
    assert lines["notes.txt"]["error"] == "not a picture: send a PNG"
    assert lines["huge.png"]["error"].startswith("is longer than 100 bytes")
    assert lines["tom.png"]["class"] == "cat"
    assert names(folder / "failed") == ["huge.png", "notes.txt"]


def test_the_same_name_again_is_another_picture(folder: Path):
    watched = watch(folder)
    for _ in range(3):
        (folder / "tom.png").write_bytes(b"picture")
        looks(watched, 3)

    assert len(results(folder)) == 3
    assert names(folder / "done") == ["tom-2.png", "tom-3.png", "tom.png"]


def test_hidden_files_folders_links_and_rotated_results_are_left_alone(folder: Path, tmp_path: Path):
    watched = watch(folder)
    (tmp_path / "elsewhere").write_bytes(b"picture")
    (folder / ".tom.png.part").write_bytes(b"picture")
    (folder / "link.png").symlink_to(tmp_path / "elsewhere")
    (folder / "results.jsonl.1").write_bytes(b"{}\n")
    (folder / "sub").mkdir()

    looks(watched, 6)

    assert results(folder) == []
    assert names(folder) == [".tom.png.part", "link.png", "results.jsonl.1"]


def test_pictures_wait_for_a_model_and_while_it_fails(folder: Path):
    fails = True

    def classify(_content: bytes) -> Prediction:
        if fails:
            raise ModelFileError("the model fails")
        return ANSWER

    (folder).mkdir()
    (folder / "tom.png").write_bytes(b"picture")
    looks(watch(folder, ready=False), 4)
    watched = watch(folder, classify)
    looks(watched, 8)
    assert results(folder) == []
    assert names(folder) == ["tom.png"]

    fails = False
    looks(watched, 2)
    assert [line["class"] for line in results(folder)] == ["cat"]


def test_a_picture_whose_line_was_written_before_the_end_is_only_moved(folder: Path):
    """The daemon ended between the two; also in the middle of a line, which then does not count."""
    asked: list[bytes] = []

    def counted(content: bytes) -> Prediction:
        asked.append(content)
        return ANSWER

    watched = watch(folder, counted)
    for name in ("jerry.png", "tom.png"):
        (folder / name).write_bytes(b"picture")
    looks(watched, 3)
    (folder / "done" / "tom.png").rename(folder / "tom.png")

    looks(watch(folder, counted), 3)
    assert len(asked) == len(results(folder)) == 2
    assert names(folder / "done") == ["jerry.png", "tom.png"]

    (folder / "done" / "tom.png").rename(folder / "tom.png")
    os.truncate(folder / "results.jsonl", (folder / "results.jsonl").stat().st_size - 5)
    looks(watch(folder, counted), 3)
    assert len(asked) == 3
    assert [line["image"] for line in results(folder)] == ["jerry.png", "tom.png"]


def test_killed_at_any_time_each_picture_is_answered_exactly_once(folder: Path):
    folder.mkdir()
    expected = {f"{number}.png" for number in range(25)}
    for name in expected:
        (folder / name).write_bytes(b"picture")
    chance, kills = random.Random(7), 0

    while any(path.suffix == ".png" for path in folder.iterdir()):
        child = os.fork()
        if child == 0:
            watched = watch(folder, every_s=0.01)
            while True:
                watched.step()
        time.sleep(chance.uniform(0.0, 0.06))  # any time is as good as another
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        assert kills < 5000

    looks(watch(folder), 1)  # cuts off what the last kill left
    assert sorted(line["image"] for line in results(folder)) == sorted(expected)
    assert set(names(folder / "done")) == expected


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_loses_nothing(folder: Path, disk: Path, caplog: pytest.LogCaptureFixture):
    watched = watch(folder, results=disk / "results.jsonl")
    (disk / "results.jsonl").write_bytes(b"{}\n" * 1300)  # the next line does not fit into its last block
    (disk / "filler").write_bytes(bytes(56 * 1024))
    with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    for number in range(50):
        (folder / f"{number:02}.png").write_bytes(b"picture")
    looks(watched, 3)

    done = names(folder / "done")
    lines = (disk / "results.jsonl").read_bytes().splitlines()[1300:]
    assert [json.loads(line)["image"] for line in lines] == done  # as many as fitted, whole lines alone
    assert len(done) < 50
    assert caplog.text.count("pictures wait (No space left on device)") == 1

    (disk / "filler").unlink()
    looks(watched, 1)
    assert len(names(folder / "done")) == 50


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file.*cannot be used for watched pictures \(Not a directory\)"):
        watch(tmp_path / "file" / "pictures")
