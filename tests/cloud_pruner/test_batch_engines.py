"""Batches as they really run, in processes and on Ray: the same answers bit for bit, whoever is killed on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache import SqliteStore
from cloud_pruner.batch import BatchDefaults, BatchSettings, LocalCrew, RayCrew, run_batch
from cloud_pruner.cli import main
from cloud_pruner.errors import MissingExtraError, PrunerError
from cloud_pruner.profile import Profile

PATIENCE_S = 120.0
CAPNN = [sys.executable, "-c", "import sys; from cloud_pruner.cli import main; sys.exit(main())"]
EMPIRICAL = ["--guarantee", "empirical"]
SETTINGS = BatchSettings("local", BatchDefaults(guarantee="empirical"))


def until(true, what):
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """41 requests of 31 devices; one cannot be certified."""
    rng = random.Random(3)
    rows = []
    for number in range(40):
        names = sorted(rng.sample(["zero", "one", "two", "three"], rng.randint(2, 3)))
        usage = {name: rng.choice([1, 2, 5]) for name in names}
        rows.append({"device": f"d-{number % 30}", "usage": usage, **({"variant": "W"} if number % 4 == 0 else {})})
    rows.append({"device": "strict", "usage": {"one": 1}, "guarantee": "certified", "epsilon": 0.01})
    path = tmp_path_factory.mktemp("requests") / "fleet.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def alone(digits_profile, requests, tmp_path_factory):
    """The folder and the summary of one worker's run, with which all others are compared."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    summary = run_batch(digits_profile, requests, folder, lambda: LocalCrew(digits_profile.folder, 1), SETTINGS)
    assert (summary.requests, summary.failed, summary.resumed) == (41, 1, 0)
    assert summary.searched == summary.keys - 1
    assert summary.searched >= 15
    return folder, summary


def same(folder, summary, alone):
    """Whether digest, table and answers are those of `alone`."""
    with SqliteStore(folder / "plans.sqlite") as ours, SqliteStore(alone[0] / "plans.sqlite") as theirs:
        kept = {key: ours.get(key) for key in ours.keys()}  # noqa: SIM118 - no mapping
        return (
            summary["digest"] == alone[1].digest
            and (folder / "results.parquet").read_bytes() == (alone[0] / "results.parquet").read_bytes()
            and kept == {key: theirs.get(key) for key in theirs.keys()}  # noqa: SIM118
        )


def kept(folder):
    path = folder / "plans.sqlite"
    if not path.exists():
        return 0
    with SqliteStore(path, patient=True) as store:
        return len(store)


def command(profile, requests, folder, *options):
    return [*CAPNN, "batch", str(profile.folder), str(requests), "-o", str(folder), *EMPIRICAL, "--json", *options]


def processes_with(text):
    """Return the ids of processes whose command line or environment holds `text`."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in entry.joinpath("cmdline").read_bytes() + entry.joinpath("environ").read_bytes():
                    found.add(int(entry.name))
            except OSError:  # it has gone, or is another's
                pass
    return found


def test_a_killed_worker_costs_nothing_but_time(digits_profile, requests, alone, tmp_path):
    crews, killed = [], []

    def crew():
        crews.append(LocalCrew(digits_profile.folder, 2))
        return crews[0]

    def progress(what, done, total):
        if what == "searching" and done in (3, 7):
            process, _ = next(iter(crews[0]._workers.values()))
            process.kill()
            killed.append(process.pid)

    summary = run_batch(digits_profile, requests, tmp_path / "out", crew, SETTINGS, progress=progress)
    assert len(set(killed)) == 2
    assert summary.failed == 1
    assert same(tmp_path / "out", summary.to_fields(), alone)


def test_a_killed_driver_goes_on_where_it_was(digits_profile, requests, alone, tmp_path):
    folder, mark = tmp_path / "out", f"CAPNN_TEST={tmp_path}"
    run = command(digits_profile, requests, folder, "--jobs", "2")
    environment = {**os.environ, "CAPNN_TEST": str(tmp_path)}
    with subprocess.Popen(run, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        until(lambda: kept(folder) >= alone[1].searched // 2 or driver.poll() is not None, "half is searched")
        driver.kill()
    assert driver.returncode == -signal.SIGKILL
    log = folder / "plans.sqlite-wal"
    os.truncate(log, log.stat().st_size - 100)  # as if power had failed in the middle of a write
    before = kept(folder)
    assert alone[1].searched // 2 - 1 <= before < alone[1].searched
    assert not (folder / "results.parquet").exists()
    until(lambda: not processes_with(mark), "its workers have ended")
    ended = subprocess.run(run, capture_output=True, text=True, check=False)
    assert ended.returncode == 1  # one request cannot be certified
    assert "1 requests have no cut" in ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["resumed"] == before
    assert same(folder, summary, alone)


def test_an_interrupt_ends_it_quietly_and_it_goes_on(digits_profile, requests, alone, tmp_path):
    folder = tmp_path / "out"
    run = command(digits_profile, requests, folder, "--jobs", "1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(run, **pipes, start_new_session=True) as driver:
        until(lambda: kept(folder) >= 2 or driver.poll() is not None, "something is searched")
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: the workers hear it too
        out, err = driver.communicate()
    assert (driver.returncode, out) == (130, "")
    assert "capnn: interrupted" in err
    assert "Traceback" not in err
    settings = BatchSettings("local", SETTINGS.defaults)
    summary = run_batch(digits_profile, requests, folder, lambda: LocalCrew(digits_profile.folder, 1), settings)
    assert summary.resumed >= 2
    assert same(folder, summary.to_fields(), alone)


def test_ray_gives_the_same_though_an_actor_is_killed(digits_profile, requests, alone, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    folder, mark = tmp_path / "out", f"CAPNN_TEST={tmp_path}"
    run = command(digits_profile, requests, folder, "--engine", "ray", "--jobs", "2", "--keep-going")
    environment = {**os.environ, "CAPNN_TEST": str(tmp_path), "TMPDIR": "/tmp", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        until(lambda: kept(folder) >= 3 or driver.poll() is not None, "something is searched")
        actors = processes_with("ray::_Actor") & processes_with(mark)
        os.kill(max(actors), signal.SIGKILL)
        out, err = driver.communicate()
    assert driver.returncode == 0
    assert same(folder, json.loads(out), alone)
    assert "a worker is lost (ActorDiedError)" in err
    assert "Started a local Ray instance" not in err
    assert "usage stat" not in err
    until(lambda: not processes_with(mark), "the cluster has ended")
    assert not list(Path("/tmp").glob(f"capnn-{os.getuid()}-{digits_profile.digest}"))


def test_without_ray_there_is_a_clear_line(digits_profile, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'capnn\[ray\]'"):
        RayCrew(digits_profile, 1)


def test_nor_without_the_cluster(digits_profile):
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(PrunerError, match="Ray: the cluster at .* cannot be used: .*refused.*: see that it runs"):
        RayCrew(digits_profile, 1, address)


def test_workers_that_cannot_open_the_profile_say_why(digits_profile, requests, tmp_path):
    with pytest.raises(PrunerError, match="nowhere: no profile there"):
        run_batch(digits_profile, requests, tmp_path / "out", lambda: LocalCrew(tmp_path / "nowhere", 2), SETTINGS)


class TestCommand:
    def test_for_people(self, digits_profile, requests, alone, capsys):
        assert main(["batch", str(digits_profile.folder), str(requests), "-o", str(alone[0]), *EMPIRICAL]) == 1
        captured = capsys.readouterr()
        assert f"41 requests, {alone[1].keys} different ones, 1 without a cut" in captured.out
        assert alone[1].digest in captured.out
        assert "1 requests have no cut" in captured.err

    @pytest.mark.parametrize(
        ("options", "line"),
        [
            (["--address", "auto"], "--address names a Ray cluster: add --engine ray"),
            (["--epsilon", "3"], "epsilon is 3.0"),
            (["--variant", "W"], "was begun with other defaults"),
        ],
    )
    def test_one_line_for_what_is_wrong(self, digits_profile, requests, alone, capsys, options, line):
        folders = [str(digits_profile.folder), str(requests), "-o", str(alone[0])]
        assert main(["batch", *folders, *EMPIRICAL, *options]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (told,) = captured.err.strip().splitlines()
        assert line in told

    def test_another_profile(self, digits_profile, requests, alone, tmp_path, capsys):
        other = tmp_path / "profile"
        other.mkdir()
        for path in digits_profile.folder.iterdir():
            other.joinpath(path.name).write_bytes(path.read_bytes())
        text = other.joinpath("manifest.json").read_text()
        other.joinpath("manifest.json").write_text(f"{text}\n")
        assert Profile.open(other).digest != digits_profile.digest
        assert main(["batch", str(other), str(requests), "-o", str(alone[0]), *EMPIRICAL]) == 1
        assert "was begun for another profile" in capsys.readouterr().err
