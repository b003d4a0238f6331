from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_runtime.classifier import EdgeClassifier
from edge_runtime.errors import DigestError, InputError, ModelFileError
from edge_runtime.serving import Models, ServingModel
from edge_runtime.slots import ModelSlots, StoredModel
from tests.edge_runtime.tiny_models import CLASSES, WEST, describe, picture, pixels, tflite_file

if TYPE_CHECKING:
    from pathlib import Path

    from edge_runtime.observation import Observation


@pytest.fixture
def models(base: StoredModel, west: StoredModel) -> Models:
    return Models(ServingModel(base), ServingModel(west))


@pytest.fixture(scope="module")
def broken(base_file: bytes) -> StoredModel:
    """A cut that answers to a black picture, and gives no numbers for others: weights whose sums are infinite."""
    content, large = tflite_file(WEST), np.float32(3e38).tobytes()
    content = content.replace(np.float32(6).tobytes(), large).replace(np.float32(3).tobytes(), large)
    return describe(content, base=base_file, usage=dict.fromkeys(WEST, 0.5))


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_picture_is_classified(base: StoredModel, label: str, kind: str):
    prediction = EdgeClassifier(Models(ServingModel(base))).classify(picture(label, kind))

    assert prediction.label == label
    assert prediction.index == CLASSES.index(label)
    assert prediction.model == base.manifest.digest
    assert prediction.top[0] == (label, prediction.confidence)
    assert sum(confidence for _, confidence in prediction.top) == pytest.approx(1, abs=1e-5)
    assert not prediction.audited


def test_pixels_and_picture_give_the_same_answer(base: StoredModel):
    classifier = EdgeClassifier(Models(ServingModel(base)))

    assert classifier.classify_pixels(pixels("south-east")) == classifier.classify(picture("south-east"))


def test_logits_become_probabilities_and_probabilities_stay(base: StoredModel):
    with_softmax = ServingModel(base)
    without = ServingModel(describe(tflite_file(CLASSES, softmax=False)))

    np.testing.assert_allclose(
        without.probabilities(pixels("north-east")), with_softmax.probabilities(pixels("north-east")), rtol=1e-4
    )


@pytest.mark.parametrize("softmax", [True, False])
def test_an_int8_model_serves_like_a_float_one(softmax):
    quantized = ServingModel(describe(tflite_file(CLASSES, softmax=softmax, quantized=True)))
    plain = ServingModel(describe(tflite_file(CLASSES, softmax=softmax)))

    for label in CLASSES:
        probabilities = quantized.probabilities(pixels(label))
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(probabilities, plain.probabilities(pixels(label)), atol=0.05)


def test_a_cut_serves_and_one_in_so_many_images_is_answered_by_the_base(models: Models):
    seen: list[Observation] = []
    classifier = EdgeClassifier(models, observed=seen.append, audit_every=3)

    predictions = [classifier.classify(picture("north-east")) for _ in range(30)]

    audits = [p.audited for p in predictions]
    assert [sum(audits[start : start + 3]) for start in range(0, 30, 3)] == [1] * 10
    # The cut was made for the west and cannot see the east: its answers alone would never tell.
    assert {p.label in WEST for p in predictions if not p.audited} == {True}
    assert {p.label for p in predictions if p.audited} == {"north-east"}
    assert models.base is not None
    assert {p.model for p in predictions if p.audited} == {models.base.manifest.digest}
    assert [(o.audited, o.manifest.digest, o.index, o.confidence) for o in seen] == [
        (p.audited, p.model, p.index, p.confidence) for p in predictions
    ]
    assert all(o.seconds > 0 for o in seen)


def test_audits_see_every_class_of_a_user_whose_classes_take_turns(models: Models):
    seen: list[Observation] = []
    classifier = EdgeClassifier(models, observed=seen.append, audit_every=4)

    for _ in range(
        100
    ):  # a fixed stride of 4 would land on one class each time; by chance that has odds of 1 in 2 ** 99
        classifier.classify(picture("north-west"))
        classifier.classify(picture("south-west"))
        classifier.classify(picture("north-west"))
        classifier.classify(picture("south-west"))

    assert {CLASSES[o.index] for o in seen if o.audited} == set(WEST)


@pytest.mark.parametrize("audit_every", [0, 10])
def test_without_audits_or_an_observer_the_cut_answers_all(models: Models, audit_every: int):
    seen: list[Observation] = []
    classifier = EdgeClassifier(models, observed=None if audit_every else seen.append, audit_every=audit_every)

    assert not any(classifier.classify(picture("north-west")).audited for _ in range(30))
    assert len(seen) == (0 if audit_every else 30)


def test_while_the_base_serves_nothing_is_an_audit(base: StoredModel):
    seen: list[Observation] = []
    classifier = EdgeClassifier(Models(ServingModel(base)), observed=seen.append, audit_every=1)

    for label in CLASSES:
        classifier.classify(picture(label))

    assert [(CLASSES[o.index], o.audited) for o in seen] == [(label, False) for label in CLASSES]


def test_a_cut_without_its_base_serves_without_audits(west: StoredModel):
    seen: list[Observation] = []
    classifier = EdgeClassifier(Models(cut=ServingModel(west)), observed=seen.append, audit_every=1)

    assert classifier.classify(picture("north-west")).label == "north-west"
    assert [o.audited for o in seen] == [False]


def test_where_a_cut_fails_the_base_answers_and_the_failure_is_told(base: StoredModel, broken: StoredModel):
    seen: list[Observation] = []
    failures: list[tuple[str, str]] = []
    cut = ServingModel(broken)
    classifier = EdgeClassifier(
        Models(ServingModel(base), cut),
        observed=seen.append,
        audit_every=0,
        failed=lambda model, error: failures.append((model.manifest.digest, str(error))),
    )

    assert [classifier.classify(picture(label)).label for label in CLASSES] == list(CLASSES)
    assert {o.manifest.digest for o in seen} == {base.manifest.digest}
    assert [digest for digest, _ in failures] == [broken.manifest.digest] * 4
    assert "not finite" in failures[0][1]


def test_a_cut_that_fails_without_a_base_is_an_error(broken: StoredModel):
    with pytest.raises(ModelFileError, match="not finite"):
        EdgeClassifier(Models(cut=ServingModel(broken))).classify(picture("north-west"))


def test_a_base_that_fails_is_an_error_and_asked_once(broken: StoredModel):
    failures: list[object] = []
    classifier = EdgeClassifier(Models(ServingModel(broken)), failed=lambda *told: failures.append(told))

    with pytest.raises(ModelFileError, match="not finite"):
        classifier.classify(picture("north-west"))
    assert failures == []


def test_a_cut_is_dropped_for_its_base(models: Models, west: StoredModel):
    classifier = EdgeClassifier(models)
    classifier.drop_cut()
    assert models.base is not None
    assert classifier.classify(picture("north-west")).model == models.base.manifest.digest

    alone = EdgeClassifier(Models(cut=ServingModel(west)))
    alone.drop_cut()  # nothing else could answer
    assert alone.classify(picture("north-west")).model == west.manifest.digest


def test_a_swap_takes_effect_with_the_next_image(base: StoredModel, west: StoredModel):
    classifier = EdgeClassifier(Models(ServingModel(base)))
    before = classifier.classify(picture("north-west"))
    classifier.swap(cut=ServingModel(west))

    assert before.model == base.manifest.digest
    assert classifier.classify(picture("north-west")).model == west.manifest.digest


def test_a_new_base_drops_the_former_ones_cut(models: Models, east_file: bytes):
    classifier = EdgeClassifier(models)
    classifier.swap(base=ServingModel(describe(east_file)))

    assert classifier.models.cut is None


@pytest.mark.parametrize(
    ("image", "message"),
    [(b"", "not a picture"), (b"hello", "not a picture"), (picture("north-west")[:60], "damaged")],
)
def test_what_is_no_picture_is_refused(models: Models, image: bytes, message: str):
    with pytest.raises(InputError, match=message):
        EdgeClassifier(models).classify(image)


def test_pixels_of_another_shape_are_refused(models: Models):
    with pytest.raises(InputError, match=r"\(9, 8, 1\)"):
        EdgeClassifier(models).classify_pixels(np.zeros((9, 8, 1), dtype=np.uint8))


def test_a_file_that_is_not_what_its_manifest_says_is_never_stored(base: StoredModel):
    with pytest.raises(DigestError):
        StoredModel(base.manifest, base.content[:-1])


def test_a_model_that_does_not_fit_its_manifest_is_not_served(base: StoredModel):
    with pytest.raises(ModelFileError, match=r"takes \(8, 8, 1\), its manifest says \(9, 8, 1\)"):
        ServingModel(
            StoredModel(
                replace(base.manifest, preprocessing=replace(base.manifest.preprocessing, height=9)), base.content
            )
        )
    with pytest.raises(ModelFileError, match=r"has outputs \(4,\), its manifest names 3 classes"):
        ServingModel(StoredModel(replace(base.manifest, classes=CLASSES[:3]), base.content))
    with pytest.raises(ModelFileError, match=r"takes uint8 inputs: only float32 or quantised inputs"):
        ServingModel(describe(tflite_file(CLASSES, dtype="uint8")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "0" * 64}, "was cut from another base than"),
        ({"classes": CLASSES[::-1]}, "has other classes than"),
    ],
)
def test_a_cut_that_would_change_the_meaning_of_answers_is_refused(
    models: Models, west: StoredModel, change: dict[str, object], message: str
):
    other = ServingModel(StoredModel(replace(west.manifest, **change), west.content))  # type: ignore[arg-type]

    with pytest.raises(ModelFileError, match=message):
        EdgeClassifier(models).swap(cut=other)


def test_a_state_folder_is_opened_in_process(state: Path, base: StoredModel, west: StoredModel):
    slots = ModelSlots(state)
    slots.install_base(base)
    slots.install_cut(west, "a")

    assert EdgeClassifier.open(state).classify(picture("south-west")).model == west.manifest.digest


def test_an_empty_or_damaged_state_folder_is_named(state: Path, base: StoredModel):
    with pytest.raises(ModelFileError, match=r"holds no verified model \(it is empty\): .* capnn-edge run"):
        EdgeClassifier.open(state)

    ModelSlots(state).install_base(base)
    (state / "base" / "model.tflite").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"holds no verified model \(.*base: model: digest is"):
        EdgeClassifier.open(state)
