"""Taylor scores: exact where the gradients are known in closed form, and on networks of any structure."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from cloud_pruner.conversion import convert
from cloud_pruner.errors import ConversionError, ImageDataError
from cloud_pruner.gradients import taylor_moments
from cloud_pruner.groups import prunable_groups
from cloud_pruner.variants import Usage
from edge_runtime.flatmodel import BaseModel, extract, normalize, separators
from edge_runtime.interpreter import LoadedModel
from tests.support.digits import PREPROCESSING

keras = pytest.importorskip("keras")
layers = keras.layers

IMAGES, CLASSES = 36, 4
MIXTURES = [Usage(np.array([2]), np.array([1.0])), Usage(np.array([0, 1, 3]), np.array([0.6, 0.3, 0.1]))]


def read_by_groups(base):
    """What the groups' first readers read: maps, not their flattened form."""
    tensors = [group.readers[0].tensor for group in prunable_groups(base, None)]
    producers = [base.graph.producer[tensor] for tensor in tensors]
    return [p.inputs[0] if p.kind == "RESHAPE" else t for t, p in zip(tensors, producers, strict=True)]


@pytest.fixture(scope="module")
def pictures():
    """Images whose classes have very different means, and labels: 12, 9, 9 and 6 of a class."""
    random = np.random.default_rng(5)
    labels = random.permutation(np.repeat(np.arange(CLASSES), [12, 9, 9, 6]))
    images = random.normal(0, 1, (IMAGES, 6, 6, 3)) + 0.7 * labels[:, None, None, None]
    return images.astype(np.float32), labels


def randomised(model):
    """Give every parameter a random value: those that a fresh network leaves at 0 or 1 would hide mistakes."""
    random = np.random.default_rng(1)
    model.set_weights(
        [
            random.uniform(0.5, 2, w.shape) if "variance" in w.path else random.normal(0, 0.35, w.shape)
            for w in model.weights
        ]
    )
    return model


def saved(model, folder, *, quantize="none", images=None, suffix=".keras"):
    """Return the file of the Keras model and its conversion."""
    path = folder / f"network{suffix}"
    model.save(path)
    convert(path, folder / "base.tflite", quantize=quantize, images=images)
    return path, BaseModel(normalize((folder / "base.tflite").read_bytes()))


def tensors_of(base, kind):
    return [operator.outputs[0] for operator in base.graph.operators if operator.kind == kind]


def score(activations, gradients, labels, usage):
    """Score the channels of `(images, positions, channels)` by the definition, with the mixture's own mean."""
    weights = np.zeros(len(labels))
    for label, weight in zip(usage.labels, usage.weights, strict=True):
        weights[labels == label] = weight / (labels == label).sum()
    mean = np.einsum("i,ic->c", weights, activations.mean(axis=1))
    return weights @ ((activations - mean) * gradients).sum(axis=1) ** 2


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def dense_network(last=None):
    return randomised(
        keras.Sequential([
            keras.Input((6, 6, 3)),
            layers.Conv2D(5, 1, activation="relu"),
            layers.Flatten(),
            layers.Dense(7, activation="relu"),
            layers.Dense(CLASSES, activation=last),
        ])
    )  # fmt: skip


def differentiate_by_hand(model, images, labels):
    """Return what follows the convolution and the first dense layer, and the gradients there: float64, chain rule."""
    w0, b0, w1, b1, w2, b2 = (w.astype(np.float64) for w in model.get_weights())
    first = np.maximum(images.reshape(len(images), -1, 3) @ w0[0, 0] + b0, 0)
    second = np.maximum(first.reshape(len(images), -1) @ w1 + b1, 0)
    by_second = (softmax(second @ w2 + b2) - np.eye(CLASSES)[labels]) @ w2.T
    by_first = ((by_second * (second > 0)) @ w1.T).reshape(first.shape)
    return (first, by_first), (second[:, None], by_second[:, None])


@pytest.mark.parametrize("last", [None, "softmax"])
def test_equal_to_the_chain_rule_by_hand_from_logits_and_from_probabilities(last, pictures, tmp_path):
    images, labels = pictures
    model = dense_network(last)
    path, base = saved(model, tmp_path)
    tensors = read_by_groups(base)
    measured = taylor_moments(path, base, tensors, images, labels)
    by_hand = differentiate_by_hand(model, images.astype(np.float64), labels)
    assert list(measured) == tensors
    for moments, (activations, gradients) in zip(measured.values(), by_hand, strict=True):
        for label in range(CLASSES):
            a, g = activations[labels == label], gradients[labels == label]
            mean = a.mean(axis=(0, 1))
            s, total = ((a - mean) * g).sum(axis=1), g.sum(axis=1)
            for part, expected in [
                (moments.means, mean),
                (moments.squares, (s**2).mean(axis=0)),
                (moments.products, (s * total).mean(axis=0)),
                (moments.gradients, (total**2).mean(axis=0)),
            ]:
                assert part.dtype == np.float32
                np.testing.assert_allclose(part[:, label], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
        for usage in MIXTURES:
            expected = score(activations, gradients, labels, usage)
            np.testing.assert_allclose(moments.scores(usage), expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_mixing_classes_counts_what_lies_between_them(pictures, tmp_path):
    """Scores around each class's own mean, averaged, are far from the mixture's."""
    images, labels = pictures
    path, base = saved(dense_network(), tmp_path)
    tensor = read_by_groups(base)[0]
    moments = taylor_moments(path, base, [tensor], images, labels)[tensor]
    usage = MIXTURES[1]
    within = moments.squares[:, usage.labels] @ usage.weights
    assert np.abs(moments.scores(usage) / within - 1).max() > 0.3


def test_a_class_without_images_has_no_scores_and_harms_no_other(pictures, tmp_path):
    images, labels = pictures
    path, base = saved(dense_network(), tmp_path)
    tensor = read_by_groups(base)[1]
    every = taylor_moments(path, base, [tensor], images, labels)[tensor]
    without = taylor_moments(path, base, [tensor], images[labels != 1], labels[labels != 1])[tensor]
    assert np.isnan(without.squares[:, 1]).all()
    np.testing.assert_allclose(without.scores(MIXTURES[0]), every.scores(MIXTURES[0]), rtol=1e-5)


def residual_network():
    """Shortcuts, branches that read the same tensor, and copies of one that only the graph of Keras has."""
    image = keras.Input((6, 6, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(image)))
    same = layers.Reshape((6, 6, 8))(layers.Dropout(0.5)(x))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(same)
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(y))
    x = layers.ReLU()(layers.Add()([y, x]))
    x = layers.Concatenate()([layers.MaxPooling2D()(x), layers.AveragePooling2D(2)(x)])
    return keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def nested_network():
    """Models in models, one of them used twice, with equal names of layers inside."""
    body = keras.Sequential([layers.Conv2D(6, 3, padding="same", name="same_name"), layers.ReLU(name="relu")])
    inside = keras.Input((3, 3, 6))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="same_name")(inside)
    twice = keras.Model(inside, layers.Add()([x, inside]), name="block")
    return keras.Sequential([
        keras.Input((6, 6, 3)),
        body,
        keras.Sequential([layers.MaxPooling2D(), layers.Conv2D(6, 1, activation="relu", name="same_name")], name="mid"),
        _called_twice(twice),
        layers.Flatten(),
        layers.Dense(CLASSES),
    ])  # fmt: skip


def _called_twice(block):
    image = keras.Input((3, 3, 6))
    return keras.Model(image, block(block(image)), name="both")


def score_by_differences(base, tensor, images, labels, usage):
    """Score by moving each channel away from its mean, in the part of the .tflite behind `tensor`; no gradients."""
    weights = np.zeros(len(labels))
    for label, weight in zip(usage.labels, usage.weights, strict=True):
        weights[labels == label] = weight / (labels == label).sum()
    content = bytes(base.content)
    values = LoadedModel(extract(content, list(base.graph.inputs), [tensor])).run(images)[0]
    behind = LoadedModel(extract(content, [tensor], list(base.graph.outputs)))
    mean = weights @ values.reshape(len(images), -1, values.shape[-1]).mean(axis=1)
    step, scores = 0.002, []
    for channel in range(values.shape[-1]):
        direction = np.zeros_like(values)
        direction[..., channel] = step * (values[..., channel] - mean[channel])
        further, nearer = (behind.run(values + sign * direction)[0].astype(np.float64) for sign in (1, -1))
        losses = [-np.log(softmax(logits)[np.arange(len(labels)), labels]) for logits in (further, nearer)]
        scores.append(weights @ ((losses[0] - losses[1]) / (2 * step)) ** 2)
    return np.array(scores)


@pytest.mark.parametrize("build", [residual_network, nested_network])
def test_equal_to_finite_differences_on_every_activation_that_all_else_follows_from(build, pictures, tmp_path):
    images, labels = pictures
    path, base = saved(randomised(build()), tmp_path)
    tensors = [operator.outputs[0] for operator in base.graph.operators]
    measured = taylor_moments(path, base, tensors, images, labels)
    checked = [tensor for tensor in tensors[:-1] if tensor in separators(base.graph)]
    assert len(checked) >= 4
    for tensor in checked:
        for usage in MIXTURES:
            expected = score_by_differences(base, tensor, images, labels, usage)
            np.testing.assert_allclose(measured[tensor].scores(usage), expected, rtol=0.03, atol=0.003 * expected.max())


def test_reads_h5_files_and_networks_of_one_batch_size(pictures, tmp_path):
    images, labels = pictures
    path, base = saved(dense_network(), tmp_path)
    tensor = read_by_groups(base)[0]
    expected = taylor_moments(path, base, [tensor], images, labels)[tensor]
    model = keras.models.load_model(path)
    image = keras.Input(batch_shape=(5, 6, 6, 3))
    fixed = keras.Model(image, model(image))
    model.save(tmp_path / "network.h5")
    fixed.save(tmp_path / "fixed.keras")
    for name in ("network.h5", "fixed.keras"):
        moments = taylor_moments(tmp_path / name, base, [tensor], images, labels)[tensor]
        np.testing.assert_allclose(moments.squares, expected.squares, rtol=1e-5)


def test_says_how_far_it_is(pictures, tmp_path):
    images, labels = pictures
    path, base = saved(dense_network(), tmp_path)
    told = []
    taylor_moments(path, base, [], images, labels, lambda *step: told.append(step))
    assert told == [("gradients", 32, 36), ("gradients", 36, 36)]


@pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8"])
def test_finds_the_activations_of_quantised_conversions(quantize, digits_network, tmp_path):
    images = digits_network.unseen
    inputs = PREPROCESSING.apply(images.pixels)
    convert(digits_network.keras, tmp_path / "q.tflite", images=images, preprocessing=PREPROCESSING, quantize=quantize)
    measured = {}
    for path in (digits_network.tflite, tmp_path / "q.tflite"):
        base = BaseModel(normalize(path.read_bytes()))
        tensors = read_by_groups(base)
        moments = taylor_moments(digits_network.keras, base, tensors, inputs, images.labels)
        measured[path] = [moments[tensor] for tensor in tensors]
    for whole, quantized in zip(*measured.values(), strict=True):
        # The gradients are those of Keras either way: finding the same tensor, they are the same.
        np.testing.assert_array_equal(whole.squares, quantized.squares)


def test_orders_units_as_the_real_loss_does(digits_network):
    images = digits_network.unseen
    inputs = PREPROCESSING.apply(images.pixels)
    base = BaseModel(normalize(digits_network.tflite.read_bytes()))
    usage = Usage(np.arange(10), np.full(10, 0.1))
    tensors = read_by_groups(base)
    for tensor, moments in taylor_moments(digits_network.keras, base, tensors, inputs, images.labels).items():
        real = loss_at_the_mean(base, tensor, inputs, images.labels)
        assert spearmanr(moments.scores(usage), real).statistic > 0.6


def loss_at_the_mean(base, tensor, inputs, labels):
    """Mean square change of the images' loss with each channel of `tensor` at its mean."""
    content = bytes(base.content)
    values = LoadedModel(extract(content, list(base.graph.inputs), [tensor])).run(inputs)[0]
    behind = LoadedModel(extract(content, [tensor], list(base.graph.outputs)))

    def losses(activations):
        return -np.log(softmax(behind.run(activations)[0].astype(np.float64))[np.arange(len(labels)), labels])

    before, changes = losses(values), []
    for channel in range(values.shape[-1]):
        changed = values.copy()
        changed[..., channel] = values[..., channel].mean()
        changes.append(np.mean((losses(changed) - before) ** 2))
    return np.array(changes)


def test_names_the_tensor_that_no_layer_gives(pictures, tmp_path):
    """The converter makes batch normalisation behind a ReLU a product and a sum; Keras has no tensor between them."""
    image = keras.Input((6, 6, 3))
    x = layers.BatchNormalization()(layers.Conv2D(5, 3, activation="relu")(image))
    x = layers.ReLU()(layers.Conv2D(4, 3, padding="same")(x))
    path, base = saved(
        randomised(keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))), tmp_path
    )
    (between,) = tensors_of(base, "MUL")
    with pytest.raises(ConversionError, match=rf"network.keras: no layer gives tensor {between} .*leave it out"):
        taylor_moments(path, base, [between], *pictures)
    (behind,) = tensors_of(base, "ADD")
    assert list(taylor_moments(path, base, [behind], *pictures)) == [behind]


def test_refuses_another_network(pictures, tmp_path):
    _, base = saved(dense_network(), tmp_path)
    tensor = read_by_groups(base)[0]
    retrained = dense_network()
    retrained.set_weights([w[..., ::-1] for w in retrained.get_weights()])
    retrained.save(tmp_path / "retrained.keras")
    with pytest.raises(ConversionError, match="retrained.keras: its answers differ .*was converted from"):
        taylor_moments(tmp_path / "retrained.keras", base, [tensor], *pictures)
    image = keras.Input((6, 6, 3))
    keras.Model(image, layers.Dense(3)(layers.Flatten()(image))).save(tmp_path / "three.keras")
    with pytest.raises(ConversionError, match=r"three.keras: has inputs and outputs of shapes .*\(3,\)"):
        taylor_moments(tmp_path / "three.keras", base, [tensor], *pictures)
    with pytest.raises(ConversionError, match="none.keras: no such file"):
        taylor_moments(Path("none.keras"), base, [tensor], *pictures)


def test_refuses_a_saved_model_whose_layers_are_hidden(pictures, tmp_path):
    path, base = saved(dense_network(), tmp_path)
    keras.models.load_model(path).export(tmp_path / "exported", verbose=False)
    tensor = read_by_groups(base)[0]
    with pytest.raises(ConversionError, match=f"exported: no layer gives tensor {tensor} "):
        taylor_moments(tmp_path / "exported", base, [tensor], *pictures)


def test_refuses_images_and_labels_that_do_not_fit(pictures, tmp_path):
    images, labels = pictures
    path, base = saved(dense_network(), tmp_path)
    for inputs, classes, message in [
        (images[:, :5], labels, r"inputs have shape \(36, 5, 6, 3\)"),
        (images[:0], labels[:0], r"inputs have shape \(0, 6, 6, 3\)"),
        (images, labels[1:], "give one label for each input"),
        (images, labels + 1, "labels go from 1 to 4: the model has classes 0 to 3"),
    ]:
        with pytest.raises(ImageDataError, match=message):
            taylor_moments(path, base, [], inputs, classes)


def test_refuses_gradients_that_are_not_finite(pictures, tmp_path):
    """A square root is infinitely steep where a ReLU gives 0."""
    image = keras.Input((6, 6, 3))
    x = keras.ops.sqrt(layers.Conv2D(5, 1, activation="relu")(image))
    path, base = saved(
        randomised(keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))), tmp_path
    )
    with pytest.raises(ConversionError, match="gradients that are NaN or infinite"):
        taylor_moments(path, base, tensors_of(base, "CONV_2D"), *pictures)


@pytest.mark.parametrize("name", ["cifar10_mlperf_resnet8", "cifar10_resnet20"])
def test_finds_every_prunable_activation_of_residual_networks(capnn_data, name, tmp_path):
    from benchmarks.data import load_cifar

    network = import_module(f"benchmarks.networks.{name}")
    pixels, labels, _ = load_cifar("cifar10_test", 10)
    inputs = network.PREPROCESSING.apply(pixels[::25])
    network.build().save(tmp_path / "model.keras")
    convert(tmp_path / "model.keras", tmp_path / "base.tflite", images=inputs, preprocessing=network.PREPROCESSING)
    base = BaseModel(normalize((tmp_path / "base.tflite").read_bytes()))
    tensors = sorted({base.channels.groups[number].consumers[0].tensor for number in base.channels.prunable})
    measured = taylor_moments(tmp_path / "model.keras", base, tensors, inputs, labels[::25])
    usage = Usage(np.arange(10), np.full(10, 0.1))
    assert all((moments.scores(usage) > 0).any() for moments in measured.values())
