"""The reference networks: those that are here get right what is written down, on images that they never saw."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.networks import cifar10_vgg16_half, reference
from benchmarks.networks.datasets import Dataset
from benchmarks.networks.reference import REFERENCES, WEIGHTS
from benchmarks.networks.training import measured_top1
from benchmarks.networks.weight_files import read_about
from cloud_pruner.errors import ImageDataError
from cloud_pruner.images import ImageSet

COMMITTED = [name for name in REFERENCES if (WEIGHTS / f"{name}.npz").is_file()]


def test_they_come_in_the_order_of_the_reports():
    assert list(REFERENCES) == [
        "vgg16", "alexnet", "resnet152", "vgg16-half", "vgg-small", "resnet56", "resnet20", "resnet8",
    ]  # fmt: skip
    for one in REFERENCES.values():
        assert one.note.endswith(".")
        assert one.note.count("\n") == 0


def test_weights_are_small_enough_to_be_kept():
    assert COMMITTED
    assert max((WEIGHTS / f"{name}.npz").stat().st_size for name in COMMITTED) < 20_000_000


@pytest.mark.parametrize("name", COMMITTED)
def test_what_is_written_of_a_network_is_what_its_file_says(name):
    about = read_about(WEIGHTS / f"{name}.npz")
    note = REFERENCES[name].note
    assert f"trained {about['epochs']} epochs" in note
    assert f"{about['test_top1']:.2%}".replace("%", " %") in note
    assert f"`{name}.npz`" in (WEIGHTS / "README.md").read_text()
    assert f"{about['held_out_top1']:.2%}".replace("%", " %") in (WEIGHTS / "README.md").read_text()


@pytest.mark.parametrize("name", COMMITTED)
def test_its_accuracy_is_the_one_written_down(name, capnn_data):
    from benchmarks.data import load_cifar

    test_images = ImageSet(*load_cifar("cifar10_test", every=10))
    share = read_about(WEIGHTS / f"{name}.npz")["test_top1"]
    deviation = np.sqrt(share * (1 - share) / len(test_images.labels))
    found = measured_top1(REFERENCES[name].build(), test_images, REFERENCES[name].preprocessing)
    assert found == pytest.approx(share, abs=3 * deviation)


def numbered(per_class):
    """Images of ten classes, class by class, each of which shows its position within its class."""
    pixels = np.zeros((10 * per_class, 32, 32, 3), dtype=np.uint8)
    pixels[:, 0, 0, :2] = np.tile(np.arange(per_class, dtype=">u2")[:, None].view(np.uint8), (10, 1))
    return pixels, np.repeat(np.arange(10), per_class), tuple("0123456789")


def positions(images):
    return images.pixels[:, 0, 0, 0].astype(int) * 256 + images.pixels[:, 0, 0, 1]


def test_the_half_network_never_saw_the_last_500_of_each_class(monkeypatch):
    monkeypatch.setattr(cifar10_vgg16_half, "load_cifar", lambda name: numbered(510 if name.endswith("train") else 2))
    assert positions(REFERENCES["vgg16-half"].train_images()).tolist() == [*range(10)] * 10
    unseen = REFERENCES["vgg16-half"].unseen_images()
    assert positions(unseen).tolist() == [*range(10, 510)] * 10 + [0, 1] * 10


@pytest.mark.parametrize("name", COMMITTED)
def test_ours_never_saw_what_was_held_out(name, monkeypatch):
    held_out = read_about(WEIGHTS / f"{name}.npz")["hold_out"]
    train, test = (ImageSet(*numbered(per_class)) for per_class in (held_out + 3, 2))
    monkeypatch.setattr(reference, "_images", lambda name: Dataset(name, train, test))
    assert REFERENCES[name].available()
    assert positions(REFERENCES[name].train_images()).tolist() == [0, 1, 2] * 10
    unseen = REFERENCES[name].unseen_images()
    assert positions(unseen).tolist() == [*range(3, held_out + 3)] * 10 + [0, 1] * 10


def test_what_is_missing_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.delenv("CAPNN_DATA", raising=False)
    assert "set CAPNN_DATA to the folder with the reference data" in REFERENCES["resnet20"].why_not()
    assert not REFERENCES["resnet20"].available()
    monkeypatch.setenv("CAPNN_DATA", str(tmp_path))
    missing = "weights/cifar10_mlperftiny_resnet8.h5, data/cifar10_train.webp.npz, data/cifar10_test.webp.npz"
    assert REFERENCES["resnet8"].why_not() == f"CAPNN_DATA has no {missing}"


def test_without_images_one_of_ours_says_what_to_do(monkeypatch):
    def nowhere(name):
        raise ImageDataError(f"{name} cannot be downloaded: connect to the internet")

    monkeypatch.setattr(reference, "_images", nowhere)
    assert REFERENCES[COMMITTED[0]].why_not() == "cifar10 cannot be downloaded: connect to the internet"
