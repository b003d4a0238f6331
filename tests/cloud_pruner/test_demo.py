"""The demo is played for real: it keeps its promises, writes its report, and leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from cloud_pruner.demo import DemoError
from cloud_pruner.demo.measure import Figures
from cloud_pruner.demo.network import load_images
from cloud_pruner.demo.processes import ServerProcess
from cloud_pruner.demo.report import report_folder
from cloud_pruner.demo.summary import Phase, Summary
from cloud_pruner.demo.users import CHANGES, FIRST, LAST, image_stream

if TYPE_CHECKING:
    from pathlib import Path

CAPNN = [sys.executable, "-c", "import sys; from cloud_pruner.cli import main; sys.exit(main())"]
SERVING = re.compile(r"serving on (http://[\d.:]+)")


def assert_nobody_serves(told: str, expected: int) -> None:
    urls = SERVING.findall(told)
    assert len(urls) == expected
    for url in urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/livez", trust_env=False)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One real demo: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "TMPDIR": str(folder)}
    demo = subprocess.run(
        [*CAPNN, "demo", "--json", "-o", str(folder / "report")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert demo.returncode == 0, demo.stderr
    return folder, demo


@pytest.fixture(scope="module")
def summary(played):
    _, demo = played
    return json.loads(demo.stdout)


def test_the_summary_on_stdout_is_the_one_in_the_report(played, summary):
    folder, _ = played
    assert json.loads((folder / "report" / "summary.json").read_text()) == summary


def test_every_cut_is_at_most_half_as_large_and_as_accurate(summary):
    first, *later = summary["phases"]
    assert first["cache_tier"] == "none"
    assert first["relative_size"] == 1
    assert len(later) == 6
    for phase in later:
        assert phase["relative_size"] <= 0.5
        assert phase["accuracy_cut"] >= phase["accuracy_base"] - 0.03
        assert phase["unseen_images"] >= 200
        assert phase["bytes"] < summary["base"]["bytes"] / 2
        assert phase["energy_ratio"] < 0.5
        assert phase["macs_ratio"] < 1
    assert summary["base"]["accuracy"] > 0.94


def test_interests_change_three_times(summary):
    phases = {phase["name"]: phase for phase in summary["phases"]}
    for number, interests in enumerate(CHANGES, start=1):
        changed = phases[f"change {number}"]
        assert changed["classes"] == list(interests)
        assert changed["cache_tier"] in {"search", "superset", "thresholds"}


def test_the_second_user_is_served_from_the_cache(summary):
    phases = {phase["name"]: phase for phase in summary["phases"]}
    first, second = phases["first cut"], phases["second user"]
    assert second["cache_tier"] == "exact"
    assert second["device"] != first["device"]
    assert (second["classes"], second["bytes"]) == (first["classes"], first["bytes"])


def test_requests_go_on_after_the_cloud_has_stopped(summary):
    after = summary["requests_after_cloud_stopped"]
    assert after["answered"] > 0
    assert after["failed"] == 0
    assert summary["requests"]["failed"] == 0
    assert "cannot be reached" in summary["cloud_error"]


def test_the_page_needs_nothing_from_elsewhere_and_has_its_plots(played):
    folder, _ = played
    page = (folder / "report" / "report.html").read_text()
    assert page.count('src="data:image/svg+xml;base64,') == 3
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "prefers-color-scheme: dark" in page


def test_the_logs_are_kept(played):
    folder, _ = played
    files = {file.name: file.read_text() for file in (folder / "report").iterdir()}
    assert files.keys() == {"report.html", "summary.json", "service.log", "device-1.log", "device-2.log"}
    assert "from search" in files["service.log"]
    assert "from exact" in files["service.log"]


def test_it_tells_what_happens_in_lines_of_100_columns(played):
    _, demo = played
    assert "device-1: usage changed: 0 (0.35) 4 (0.35) 6 (0.30) -> asked the cloud -> cut of" in demo.stderr
    table = [line for line in demo.stderr.splitlines() if re.match(r" ?(phase|getting to know|change \d) +\S", line)]
    assert len(table) == 5
    assert all(len(line) <= 100 for line in table)


def test_nothing_is_left_running_or_lying_about(played):
    folder, demo = played
    assert_nobody_serves(demo.stderr, expected=3)
    assert [entry.name for entry in folder.iterdir()] == ["report"]


def test_an_interrupt_ends_the_demo_and_all_that_it_started(tmp_path: Path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*CAPNN, "demo", "--json", "-o", str(tmp_path / "report")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as demo:
        assert demo.stderr is not None
        told = ""
        for line in demo.stderr:
            told += line
            if line.startswith("device-1: serving"):
                demo.send_signal(signal.SIGINT)
                break
        told += demo.stderr.read()
    assert demo.returncode == 130, told
    assert told.endswith("capnn: interrupted\n")
    assert_nobody_serves(told, expected=2)
    assert list(tmp_path.iterdir()) == []


FIGURES = Figures(200, 0.97, 0.97, 0.2, 0.5, 1.0, 10, 0.2, 0.1)


def a_summary(**changes) -> Summary:
    """A summary in which all promises hold, but for `changes` to the phase "first cut"."""
    cut = Phase("first cut", "user 1", "device-1", FIRST, 10, 0.2, "search", 0.1, 100, 0, FIGURES)
    return Summary(
        seed=0,
        images={},
        parameters=100,
        bytes=50,
        base_accuracy=0.97,
        phases=(
            replace(cut, name="getting to know", relative_size=1.0, cache_tier="none"),
            replace(cut, **changes),
            replace(cut, name="second user", device="device-2", cache_tier="exact"),
            replace(cut, name="cloud stopped"),
        ),
        stop_phase="cloud stopped",
        second_user_phase="second user",
        cloud_error="",
        seconds=1.0,
    )


def broken(summary: Summary) -> list[str]:
    return [promise.broken for promise in summary.promises() if promise.broken is not None]


def test_promises_that_hold():
    assert broken(a_summary()) == []
    assert broken(a_summary(relative_size=0.5)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"relative_size": 0.51}, "first cut: 51.0%"),
        ({"figures": replace(FIGURES, accuracy_cut=0.93)}, "first cut: -4.0 points"),
        ({"failed": 1}, "1 failed"),
        ({"name": "cloud stopped", "requests": 0}, "0 answered, 0 failed"),
        ({"name": "second user"}, "it came from search"),
    ],
)
def test_a_broken_promise_is_named(changes, said):
    assert broken(a_summary(**changes)) == [said]


def test_the_sets_of_images_are_disjoint_and_complete():
    images = load_images(seed=3)
    parts = (images.train, images.held_out, images.report)
    assert sum(len(part.labels) for part in parts) == 1797
    assert min(Counter(images.report.labels.tolist()).values()) >= 60
    # A few scans are there twice; no more may be shared than that.
    scans = [{pixels.tobytes() for pixels in part.pixels} for part in parts]
    repeated = 1797 - len(set.union(*scans))
    assert sum(map(len, scans)) - len(set.union(*scans)) <= repeated


@pytest.mark.parametrize("interests", [FIRST, *CHANGES, LAST])
def test_a_stream_holds_each_class_in_its_share(interests):
    images = load_images(seed=3).held_out
    label_of = {pixels.tobytes(): label for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True)}
    shown = list(islice(image_stream(images, interests, seed=5), 100))
    for start in range(0, 100, 20):
        labels = Counter(label_of[image] for image in shown[start : start + 20])
        assert {images.classes[label]: n / 20 for label, n in labels.items()} == pytest.approx(interests)


def test_two_users_with_the_same_interests_are_shown_them_in_different_orders():
    images = load_images(seed=3).held_out
    first, second = (list(islice(image_stream(images, FIRST, seed=seed), 40)) for seed in (1, 2))
    assert first != second
    assert np.sum(list(FIRST.values())) == pytest.approx(1)


def test_a_folder_that_is_no_report_is_refused(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with (
        pytest.raises(DemoError, match="photos: exists and is no report of the demo"),
        report_folder(tmp_path / "photos"),
    ):
        pass
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_an_earlier_report_is_replaced_only_at_the_end(tmp_path: Path):
    earlier = tmp_path / "report"
    earlier.mkdir()
    (earlier / "summary.json").write_text('{"demo": "capnn"}')
    with pytest.raises(KeyboardInterrupt), report_folder(earlier):
        raise KeyboardInterrupt
    assert (earlier / "summary.json").exists()
    with report_folder(earlier) as folder:
        (folder / "new").touch()
    assert [file.name for file in earlier.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [earlier]


def test_a_process_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path):
    command = [sys.executable, "-c", "import sys; sys.exit('no profile here')"]
    with (
        pytest.raises(DemoError, match="service ended before it served: no profile here"),
        ServerProcess("service", command, tmp_path / "service.log"),
    ):
        pass
