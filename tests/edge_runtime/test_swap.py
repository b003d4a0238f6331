"""Models are swapped below clients that classify at full rate."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

from edge_runtime.classifier import EdgeClassifier, Prediction
from edge_runtime.serving import Models, ServingModel
from tests.edge_runtime.tiny_models import CLASSES, picture

if TYPE_CHECKING:
    from edge_runtime.slots import StoredModel

SWAPS = 100
PICTURES = {label: picture(label) for label in CLASSES}


class Client(threading.Thread):
    """Classifies all pictures in turn, without a pause; `served` is released once for each."""

    def __init__(self, classifier: EdgeClassifier, served: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[str, Prediction]] = []
        self.error: Exception | None = None
        self._classifier = classifier
        self._served = served
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            for label in itertools.cycle(CLASSES):
                if self._done.is_set():
                    return
                self.answers.append((label, self._classifier.classify(PICTURES[label])))
                self._served.release()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must reach the test
            self.error = error

    def finish(self) -> list[tuple[str, Prediction]]:
        self._done.set()
        self.join()
        assert self.error is None
        return self.answers


def test_in_a_hundred_swaps_no_answer_fails_and_each_is_of_one_model(
    base: StoredModel, west: StoredModel, east: StoredModel
):
    models = (base, west, east)
    alone = {stored.manifest.digest: EdgeClassifier(Models(ServingModel(stored))) for stored in models}
    expected = {
        (digest, label): classifier.classify(content)
        for digest, classifier in alone.items()
        for label, content in PICTURES.items()
    }

    classifier, served = EdgeClassifier(Models(ServingModel(base))), threading.Semaphore(0)
    clients = [Client(classifier, served) for _ in range(2)]
    for number in range(SWAPS):
        for _ in range(5):  # so that each model answers some
            assert served.acquire(timeout=30), f"no client is answered any more: {[c.error for c in clients]}"
        if number % 10 == 9:
            classifier.drop_cut()
        else:
            classifier.swap(cut=ServingModel((west, east)[number % 2]))
    answers = [answer for client in clients for answer in client.finish()]

    assert {prediction.model for _, prediction in answers} == {stored.manifest.digest for stored in models}
    assert all(prediction == expected[prediction.model, label] for label, prediction in answers)
