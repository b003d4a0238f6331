"""The whole loop: a device and the cloud service, with a real network and real images."""

from __future__ import annotations

import itertools
import time
from typing import NamedTuple

import numpy as np
import pytest

from cache import LayeredStore, MemoryStore, PlanCache
from cloud_pruner.images import ImageSet
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profiling import ProfileSettings, build_profile
from cloud_pruner.service import make_service
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import generate
from edge_runtime.config import CloudConfig, EdgeConfig, MonitorConfig
from edge_runtime.daemon import EdgeDaemon
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import CLASSES, PREPROCESSING
from tests.support.server import running


@pytest.fixture
def signer(tmp_path):
    with Signer(generate(tmp_path / "keys").folder) as signer:
        yield signer


@pytest.fixture
def service(digits_profile, signer):
    with PlanCache(LayeredStore(MemoryStore(max_bytes=1 << 20))) as cache:
        personalizer = Personalizer(digits_profile, cache)
        with running(make_service(personalizer, signer, "empirical")) as url:
            yield personalizer, Service(url, signer.keys.public)


@pytest.fixture(scope="module")
def recognised(digits_network):
    """Unseen images that the base gets right: two users who show the same classes then count the same."""
    images, model = digits_network.unseen, LoadedModel(digits_network.tflite.read_bytes())
    right = model.run(PREPROCESSING.apply(images.pixels))[0].argmax(axis=1) == images.labels
    return ImageSet(images.pixels[right], images.labels[right], images.classes)


class User:
    """Shows a device images of the classes that it meets, in turn."""

    def __init__(self, device, images):
        self._device, self._images, self._turn = device, images, itertools.count()

    def show(self, names):
        turn = next(self._turn)
        pixels = self._images.pixels[self._images.labels == CLASSES.index(names[turn % len(names)])]
        return self._device.classify(lambda classifier: classifier.classify_pixels(pixels[turn % len(pixels)]))

    def show_until(self, names, condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"nothing came of it: {self._device.status()}"
            self.show(names)


class Service(NamedTuple):
    url: str
    key: str


def config(service, state):
    return EdgeConfig(
        state=state,
        cloud=CloudConfig(service.url, (service.key,), retry_first_s=0.02, retry_max_s=0.1),
        monitor=MonitorConfig(period=60, audit_every=3),
    )


def cut_for(device):
    cut = device.classifier.models.cut
    return None if cut is None else sorted(cut.manifest.usage)


def test_a_device_follows_its_user(service, recognised, tmp_path):
    personalizer, cloud = service
    with EdgeDaemon(config(cloud, tmp_path / "first")) as device:
        user = User(device, recognised)
        wait_for_base(device)
        user.show_until(["one", "seven"], lambda: cut_for(device) == ["one", "seven"])
        assert device.classifier.models.cut.manifest.relative_size < 0.6
        assert device.classifier.models.cut.manifest.cache_tier == "search"
        user.show_until(["three", "five", "eight"], lambda: cut_for(device) == ["eight", "five", "three"])
        right = np.mean([user.show(["three"]).label == "three" for _ in range(80)])
        assert right >= 0.85
        assert device.status()["counters"]["failed"] == 0
    with EdgeDaemon(config(cloud, tmp_path / "second")) as device:
        wait_for_base(device)
        User(device, recognised).show_until(["one", "seven"], lambda: cut_for(device) is not None)
        assert device.classifier.models.cut.manifest.cache_tier == "exact"
    assert personalizer.cache.statistics().exact.hits >= 1


def test_a_device_takes_over_a_new_base(service, signer, digits_network, tmp_path):
    """The cloud has another base model by now: the device fetches it, and is cut from that one."""
    _, cloud = service
    state = tmp_path / "state"
    with EdgeDaemon(config(cloud, state)) as device:
        wait_for_base(device)
        User(device, digits_network.unseen).show_until(["one", "seven"], lambda: cut_for(device) is not None)
    profile = build_profile(
        retrained(digits_network),
        digits_network.trained_on,
        PREPROCESSING,
        tmp_path / "profile",
        unseen=digits_network.unseen,
        settings=ProfileSettings(depth=None),
    )
    with (
        running(make_service(Personalizer(profile), signer, "empirical")) as url,
        EdgeDaemon(config(Service(url, cloud.key), state)) as device,
    ):
        user = User(device, digits_network.unseen)
        # Usage has to change before the device asks, and so learns that its base is outdated.
        user.show_until(["two", "six"], lambda: device.classifier.models.base.manifest.digest == profile.base.digest)
        user.show_until(["two", "six"], lambda: cut_for(device) == ["six", "two"])
        assert device.classifier.models.cut.manifest.base == profile.base.digest
        assert device.status()["counters"]["failed"] == 0


def retrained(network):
    """Return the network with slightly other weights: another base model for the same classes."""
    from edge_runtime.flatmodel import read_graph

    content = bytearray(network.tflite.read_bytes())
    for tensor in read_graph(content).tensors:
        if tensor.data is not None and tensor.data.dtype == np.float32:
            tensor.data[...] *= 1.0001
    return bytes(content)


def wait_for_base(device):
    deadline = time.monotonic() + 120
    while not device.ready:
        assert time.monotonic() < deadline
        time.sleep(0.005)
