from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_runtime.digests import digest_of
from edge_runtime.self_test import EXPECTED, expected_answer, run_self_test, self_test_images
from edge_runtime.serving import ServingModel
from edge_runtime.wire import SelfTest

if TYPE_CHECKING:
    from edge_runtime.slots import StoredModel


def test_a_seed_gives_the_same_bytes_everywhere():
    images = self_test_images(7, 4, (32, 32, 3))

    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    assert digest_of(images.tobytes()) == "f99cb87c61d50d67659eb9636e41e3871e08ffc7cdf33d36cbe17991b040e142"
    assert (
        digest_of(self_test_images(0, 1, (224, 160, 1)).tobytes())
        == "a84cb0ab389565d1d5eeecfa11da5124b248097a5f6b44260a5e2018bc6c246b"
    )


def test_fewer_images_are_the_first_of_more():
    np.testing.assert_array_equal(self_test_images(3, 2, (8, 8, 1)), self_test_images(3, 5, (8, 8, 1))[:2])


def test_images_use_the_range_and_have_regions():
    images = self_test_images(1, 16, (64, 64, 3)).astype(float)

    assert images.std() > 40
    assert np.percentile(images, 5) < 64
    assert np.percentile(images, 95) > 192
    # Neighbours are alike, as in pictures; in noise they would not be.
    pairs = images[:, :, 1:].ravel(), images[:, :, :-1].ravel()
    assert np.corrcoef(*pairs)[0, 1] > 0.9
    # And no two images are.
    assert np.abs(np.corrcoef(images.reshape(16, -1)) - np.eye(16)).max() < 0.5


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 3), (8, 8, 1)])
def test_any_size_will_do(shape):
    assert self_test_images(1, 1, shape).shape == (1, *shape)


def test_the_expected_answer_is_the_most_probable_classes():
    probabilities = np.array([0.05, 0.3, 0.04, 0.01, 0.4, 0.15, 0.05], dtype=np.float32)

    assert [index for index, _ in expected_answer(probabilities)] == [4, 1, 5, 0, 6]
    assert len(expected_answer(probabilities)) == EXPECTED


def test_a_model_is_told_from_another_by_its_answers(base: StoredModel, west: StoredModel):
    model, other = ServingModel(base), ServingModel(west)
    images = self_test_images(5, 4, (8, 8, 1))
    self_test = SelfTest(5, tuple(expected_answer(model.probabilities(image)) for image in images), 1e-4)

    assert run_self_test(model, self_test) is None
    reason = run_self_test(other, self_test)
    assert reason is not None
    assert "self-test image" in reason
    assert run_self_test(other, replace(self_test, tolerance=1.0)) is None
