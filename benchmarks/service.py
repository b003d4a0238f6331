"""What the cloud service answers under load, on real sockets, with real processes and tokens.

`python -m benchmarks.service --json`; needs the reference data (`CAPNN_DATA`): the small VGG for CIFAR-100. `capnn
serve --workers 2 --tokens` answers 1,000 devices that belong to 40 kinds of user, whose cuts are searched before, so
that what is measured are exact hits: 200 requests a second, then ten times as many, then 200 again. Requests come
whether or not earlier ones were answered, from a process that shares the machine's cores; latencies count from when
each was due. What a device asks for first has to be recorded; that is measured by itself, as `first`.

`p99_overloaded_over_before` compares the accepted requests of the overload with those before it (wanted: at most 5),
`memory_overloaded_over_before` the workers' largest resident memory. `context` has the latencies (wanted: a p99 of at
most 20 ms before), every status (wanted: 200 and, under overload, 429), `recovery_s`: after how long requests that
become due are answered within twice the p99 before (wanted: at most 5 s), and the processor time of a request.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from benchmarks.command import main
from benchmarks.http_load import Phase, post, quantile, start_load
from benchmarks.networks import cifar100_vgg_small as network
from benchmarks.profiles import profiled
from benchmarks.service_process import ServiceProcess, capnn
from cloud_pruner.profiling import ProfileSettings
from edge_runtime.messages import pack
from edge_runtime.signing import SignedManifest, TrustedKeys
from edge_runtime.wire import MSGPACK, PersonalizeRequest

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from benchmarks.http_load import Answers
    from cloud_pruner.profile import Profile

WORKERS = 2
DEVICES, USERS = 1000, 40
RATE, OVERLOAD = 200.0, 2000.0
FIRST, WARMING, BEFORE, OVERLOADED, AFTER = DEVICES / RATE, 10.0, 20.0, 10.0, 15.0
SEED = 0
_WINDOW_S, _STEP_S = 1.0, 0.25
_SAMPLE_S = 0.25


def measure() -> dict[str, Any]:
    """Return the JSON object."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        profile = profiled(network, folder, ProfileSettings(images={"select": 50, "certify": 50}))
        capnn("keys", "generate", folder / "keys")
        state = ("--state", folder / "state")
        operator = json.loads(capnn("operators", "create", "benchmark", *state, "--json"))["token"]
        where = (folder / "profile", "--keys", folder / "keys", "--cache", folder / "plans.sqlite", *state)
        with ServiceProcess(*where, "--workers", str(WORKERS), "--tokens", "--guarantee", "empirical") as service:
            return _measured(service, profile, operator)


def _measured(service: ServiceProcess, profile: Profile, operator: str) -> dict[str, Any]:
    wishes = list(_users(profile))
    requests = []
    began = time.monotonic()
    with httpx.Client(base_url=service.url, headers={"authorization": f"Bearer {operator}"}, timeout=60) as http:
        trusted = TrustedKeys.of([http.get("/v1/status").json()["key"]])
        for number, wish in enumerate(wishes):
            answer = http.post("/v1/personalize", content=pack(wish.to_fields()), headers={"content-type": MSGPACK})
            SignedManifest.from_bytes(answer.raise_for_status().content).verified(trusted)
            print(f"searched for {number + 1} of {USERS} users", file=sys.stderr)
        searches_s = time.monotonic() - began
        for number in range(DEVICES):
            answer = http.post("/v1/devices", json={"name": f"device-{number}"})
            headers = {"authorization": f"Bearer {answer.raise_for_status().json()['token']}", "content-type": MSGPACK}
            wish = wishes[number % USERS]
            body = pack(wish.to_fields() | {"device": f"device-{number}"})
            requests.append(post("/v1/personalize", body, headers))
    phases = [Phase(RATE, FIRST + WARMING), Phase(RATE, BEFORE), Phase(OVERLOAD, OVERLOADED), Phase(RATE, AFTER)]
    load_average = os.getloadavg()[0]
    load = start_load(service.port, requests, phases, SEED)
    with _Watch(service) as watch:
        answers = load.result()
    result = _compared(answers, watch)
    result["context"] |= {"load_average_at_start": load_average, "searches_s": searches_s}
    return result


def _compared(answers: Answers, watch: _Watch) -> dict[str, Any]:
    ends = np.cumsum([FIRST + WARMING, BEFORE, OVERLOADED, AFTER]).tolist()
    before, overloaded, after = (answers.between(*span) for span in itertools.pairwise(ends))
    usual = quantile(before.latencies(200), 0.99)
    return {
        "ratios": {
            "p99_overloaded_over_before": quantile(overloaded.latencies(200), 0.99) / usual,
            "memory_overloaded_over_before": watch.memory(answers.start + ends[1], answers.start + ends[3])
            / watch.memory(answers.start + ends[0], answers.start + ends[1]),
        },
        "context": {
            "first": _described(answers.between(0.0, FIRST), RATE),
            "before": _described(before, RATE),
            "overloaded": _described(overloaded, OVERLOAD),
            "after": _described(after, RATE),
            "recovery_s": _recovery(answers, ends[2], ends[3], 2.0 * usual),
            "core_ms_a_request": {
                "before": watch.processor_s(answers.start + ends[0], answers.start + ends[1]) / len(before.due) * 1e3,
                "overloaded": watch.processor_s(answers.start + ends[1], answers.start + ends[2])
                / len(overloaded.due)
                * 1e3,
            },
            "workers": WORKERS,
            "devices": DEVICES,
            "users": USERS,
        },
    }


def _described(answers: Answers, rate: float) -> dict[str, Any]:
    accepted, refused = answers.latencies(200), answers.latencies(429)
    return {
        "requests_per_s": rate,
        "statuses": {str(status): count for status, count in answers.statuses.items()},
        "accepted_s": {"p50": quantile(accepted, 0.5), "p99": quantile(accepted, 0.99)} if len(accepted) else None,
        "refused_s": {"p50": quantile(refused, 0.5), "p99": quantile(refused, 0.99)} if len(refused) else None,
    }


def _recovery(answers: Answers, start: float, stop: float, wanted: float) -> float | None:
    """Return how long after `start` the requests of a second are first all answered, 99 % of them within `wanted` s."""
    for begun in np.arange(start, stop - _WINDOW_S, _STEP_S).tolist():
        window = answers.between(begun, begun + _WINDOW_S)
        if set(window.statuses) == {200} and quantile(window.latencies(200), 0.99) <= wanted:
            return float(begun - start)
    return None


class _Watch(threading.Thread):
    """Notes what the workers of a service take, several times a second, while it is entered."""

    def __init__(self, service: ServiceProcess) -> None:
        super().__init__(daemon=True)
        self._service = service
        self._noted: list[tuple[float, int, float]] = []
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self._noted.append((time.monotonic(), self._service.memory, self._service.processor_s))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.join()

    def memory(self, start: float, stop: float) -> int:
        """Return the most that was resident between two times of the monotonic clock, in bytes."""
        return max(memory for at, memory, _ in self._noted if start <= at < stop)

    def processor_s(self, start: float, stop: float) -> float:
        """Return the processor time that was taken between them, in s."""
        taken = [processor for at, _, processor in self._noted if start <= at < stop]
        return taken[-1] - taken[0]


def _users(profile: Profile) -> list[PersonalizeRequest]:
    """Return what each kind of user asks for: 2 to 5 classes, with weights in steps of 5 %."""
    rng = np.random.default_rng(SEED)
    users = []
    for _ in range(USERS):
        labels = rng.choice(len(profile.classes), rng.integers(2, 6), replace=False)
        steps = np.maximum(np.round(20 * rng.dirichlet(np.ones(len(labels)))), 1)
        usage = {profile.classes[label]: float(step) for label, step in zip(labels, steps, strict=True)}
        users.append(PersonalizeRequest(base=profile.base.digest, usage=usage))
    return users


if __name__ == "__main__":
    main(measure)
