"""The command as a person meets it: what it prints, what it writes, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cloud_pruner.cli import main
from cloud_pruner.profile import Profile
from edge_runtime.digests import digest_of
from tests.support.digits import CLASSES

PREPROCESSING = ["--channels", "grey"]


def npz(path, images):
    np.savez(path, x=images.pixels, y=images.labels, classes=np.array(images.classes))
    return str(path)


@pytest.fixture(scope="module")
def files(digits_network, digits_profile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    return {
        "keras": str(digits_network.keras),
        "tflite": str(digits_network.tflite),
        "profile": str(digits_profile.folder),
        "seen": npz(folder / "seen.npz", digits_network.trained_on),
        "unseen": npz(folder / "unseen.npz", digits_network.unseen),
    }


def failure(capsys, *arguments):
    """Run the command, which must fail, and return its one line on stderr."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert code == 1
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def test_convert_profile_prune(files, tmp_path, capsys):
    """A network, a folder of images, three commands, a cut model."""
    base, profile, cut = tmp_path / "base.tflite", tmp_path / "profile", tmp_path / "cut.tflite"
    assert main(["convert", files["keras"], "-o", str(base), "--data", files["unseen"], *PREPROCESSING]) == 0
    assert "largest difference" in capsys.readouterr().out
    data = ["--data", files["seen"], "--unseen", files["unseen"]]
    assert main(["profile", str(base), *data, "-o", str(profile), "--depth", "all", *PREPROCESSING]) == 0
    assert "prunable layer" in capsys.readouterr().out
    assert main(["prune", str(profile), "--classes", "one", "seven", "--guarantee", "empirical", "-o", str(cut)]) == 0
    out = capsys.readouterr().out
    assert "relative size 0." in out
    assert digest_of(cut.read_bytes()) in out
    assert os.path.getsize(cut) < os.path.getsize(base)


def test_prune_as_json(files, tmp_path, capsys):
    plan = tmp_path / "cut.plan"
    arguments = [
        "--classes",
        "one,seven",
        "--weights",
        "3,1",
        "--variant",
        "w",
        "--epsilon",
        "0.05",
        "--plan",
        str(plan),
    ]
    assert main(["prune", files["profile"], *arguments, "--guarantee", "empirical", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["variant"] == "W"
    assert fields["classes"] == ["one", "seven"]
    assert fields["weights"] == [0.75, 0.25]
    assert fields["cache_tier"] == "search"
    assert 0 < fields["relative_size"] <= 1
    assert fields["per_class"]["one"].keys() == {"n", "base_accuracy", "accuracy"}
    assert fields["plan_bytes"] == plan.stat().st_size
    assert fields.keys() >= {"bytes", "seconds", "digest", "held_out", "layers"}


def test_a_cache_file_is_used_by_the_next_command(files, tmp_path, capsys):
    cache = ["--cache", str(tmp_path / "plans.sqlite"), "--json"]
    tiers = []
    for _ in range(2):
        assert main(["prune", files["profile"], "--classes", "two", "three", "--guarantee", "empirical", *cache]) == 0
        tiers.append(json.loads(capsys.readouterr().out)["cache_tier"])
    assert tiers == ["search", "exact"]


class TestBadInput:
    def test_a_file_that_is_no_tflite(self, files, tmp_path, capsys):
        wrong = tmp_path / "photo.tflite"
        wrong.write_bytes(b"\xff\xd8\xff\xe0 a photo")
        line = failure(capsys, "profile", wrong, "--data", files["seen"], "-o", tmp_path / "p")
        assert "photo.tflite: not a .tflite file" in line

    @pytest.mark.parametrize("length", [0, 3, 100, 5000, 20_000])
    def test_a_truncated_tflite(self, files, tmp_path, capsys, length):
        wrong = tmp_path / "half.tflite"
        with open(files["tflite"], "rb") as whole:
            wrong.write_bytes(whole.read()[:length])
        line = failure(capsys, "profile", wrong, "--data", files["seen"], "-o", tmp_path / "p", *PREPROCESSING)
        assert "half.tflite" in line
        assert not (tmp_path / "p").exists()

    def test_no_such_file(self, files, tmp_path, capsys):
        line = failure(capsys, "profile", tmp_path / "nothing.tflite", "--data", files["seen"], "-o", tmp_path / "p")
        assert "nothing.tflite" in line

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--classes", "eleven"], "unknown class 'eleven'"),
            (["--classes", "one", "--weights", "-1"], "weight of class 'one' is -1.0"),
            (["--classes", "one", "two", "--weights", "0", "0"], "weights sum to nothing"),
            (["--classes", "one", "two", "--weights", "1"], "1 weights for 2 classes"),
            (["--classes", "one", "--weights", "lots"], "'lots', which is no number"),
            (["--classes", "one", "one"], "class 'one' is named twice"),
            (["--classes", ","], "no classes"),
            (["--classes", "one", "--epsilon", "1.5"], "epsilon is 1.5"),
            (["--classes", "one", "--guarantee", "empirical", "-o", "no/such/folder/cut.tflite"], "no/such/folder"),
            (["--classes", "one"], "20 certify images, but epsilon 3 % at delta 0.1 takes 99 a class"),
            (["--classes", "one", "--delta", "1"], "delta is 1.0"),
        ],
    )
    def test_wishes_that_cannot_be_met(self, files, capsys, arguments, message):
        assert message in failure(capsys, "prune", files["profile"], *arguments)

    def test_an_empty_class_folder(self, files, tmp_path, capsys):
        for name in CLASSES:
            (tmp_path / "data" / name).mkdir(parents=True)
        line = failure(
            capsys, "profile", files["tflite"], "--data", tmp_path / "data", "-o", tmp_path / "p", *PREPROCESSING
        )
        assert "eight" in line
        assert "data" in line

    def test_images_of_the_wrong_size(self, files, tmp_path, capsys):
        for name in CLASSES:
            (tmp_path / "data" / name).mkdir(parents=True)
            Image.new("L", (9, 8)).save(tmp_path / "data" / name / "1.png")
        line = failure(
            capsys, "profile", files["tflite"], "--data", tmp_path / "data", "-o", tmp_path / "p", *PREPROCESSING
        )
        assert "1.png" in line
        assert "9" in line
        assert "8" in line

    def test_a_profile_of_another_model(self, files, tmp_path, capsys):
        other = tmp_path / "other.tflite"
        main(["prune", files["profile"], "--classes", "one", "--guarantee", "empirical", "-o", str(other)])
        capsys.readouterr()
        line = failure(capsys, "prune", files["profile"], "--classes", "one", "--base", other)
        assert "the profile is of model" in line
        assert (
            main(["prune", files["profile"], "--classes", "one", "--guarantee", "empirical", "--base", files["tflite"]])
            == 0
        )

    def test_a_corrupt_profile_array(self, files, tmp_path, capsys):
        folder = shutil.copytree(files["profile"], tmp_path / "copy")
        path = folder / "mean_activations_2.npy"
        content = bytearray(path.read_bytes())
        content[200] ^= 1
        path.write_bytes(content)
        line = failure(capsys, "prune", folder, "--classes", "one")
        assert "mean_activations_2.npy" in line
        assert "make the profile again" in line

    def test_a_cache_that_is_no_database(self, files, tmp_path, capsys):
        wrong = tmp_path / "plans.sqlite"
        wrong.write_bytes(b"no database at all" * 100)
        assert "plans.sqlite" in failure(capsys, "prune", files["profile"], "--classes", "one", "--cache", wrong)

    @pytest.mark.parametrize(
        "arguments", [[], ["prune"], ["prune", "p"], ["frobnicate"], ["profile", "m", "--depth", "1"]]
    )
    def test_wrong_usage_is_exit_code_2(self, capsys, arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["convert", "evaluate", "inspect", "profile", "prune", "serve", "demo"])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  capnn {command}" in capsys.readouterr().out


def test_debug_shows_the_traceback(files, capsys):
    assert main(["prune", files["profile"], "--classes", "eleven", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_while_profiling_leaves_nothing_behind(files, tmp_path):
    """A real process, a real SIGINT, as soon as it has begun to write."""
    script = (
        "import os, signal, sys, threading\n"
        "from cloud_pruner import profiling\n"
        "from cloud_pruner.cli import main\n"
        "before = profiling._Measurement._measure_split\n"
        "def interrupted(self, *arguments, **options):\n"
        "    before(self, *arguments, **options)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "profiling._Measurement._measure_split = interrupted\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["profile", files["tflite"], "--data", files["seen"], "-o", str(tmp_path / "p"), *PREPROCESSING]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1] == "capnn: interrupted"
    assert os.listdir(tmp_path) == []


def test_stdout_of_the_profile_json_is_only_json(files, tmp_path):
    script = "import sys; from cloud_pruner.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [
        "profile",
        files["tflite"],
        "--data",
        files["unseen"],
        "-o",
        str(tmp_path / "p"),
        "--json",
        *PREPROCESSING,
    ]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["digest"] == Profile.open(tmp_path / "p").digest
