"""A whole daemon's life: it has a base, meets the west, fetches a cut from a cloud, and keeps it after its probation.

Two clients classify all the while, so that everything that the daemon writes is under way.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

from edge_runtime.config import CloudConfig, EdgeConfig, MonitorConfig, ProbationConfig
from edge_runtime.daemon import EdgeDaemon
from tests.edge_runtime.tiny_models import WEST, picture

if TYPE_CHECKING:
    from pathlib import Path

_PICTURES = [picture(label) for label in WEST]
_DEADLINE_S = 240.0


def live(state: Path, url: str, key: str, digest: str) -> None:
    """Run the daemon on `state` until the cut `digest` serves and is no longer on probation."""
    config = EdgeConfig(
        state,
        CloudConfig(url, (key,), timeout_s=60, retry_first_s=0.01, retry_max_s=0.05),
        monitor=MonitorConfig(period=40, audit_every=2),
        probation=ProbationConfig(images=40, latency_factor=1000),
    )
    done = threading.Event()

    def client(daemon: EdgeDaemon) -> None:
        for content in itertools.cycle(_PICTURES):
            if done.is_set():
                return
            daemon.classify(lambda classifier, content=content: classifier.classify(content))
            time.sleep(0.002)

    with EdgeDaemon(config) as daemon:
        clients = [threading.Thread(target=client, args=(daemon,), daemon=True) for _ in range(2)]
        for thread in clients:
            thread.start()
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            status = daemon.status()
            assert all(thread.is_alive() for thread in clients), "a client was not answered"
            if status["model"]["digest"] == digest and status["state"] == "monitoring":
                break
            assert time.monotonic() < deadline, f"the cut did not come: {status}"
            time.sleep(0.02)
        done.set()
        for thread in clients:
            thread.join()
