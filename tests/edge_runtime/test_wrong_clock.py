"""A wall clock that is wrong, or set back by a year while the daemon runs, changes nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.edge_runtime.test_cli import running
from tests.edge_runtime.tiny_models import EAST, WEST, picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_runtime.slots import StoredModel
    from tests.edge_runtime.cloud_simulator import CloudSimulator

YEAR_S = 365 * 24 * 3600


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to put the clock wrong with")
    library = tmp_path_factory.mktemp("clock") / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def test_the_clock_of_a_process_can_be_put_wrong(library: Path, tmp_path: Path):
    """Else the tests below could not fail."""
    (tmp_path / "by").write_text(str(-YEAR_S))
    environment = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(tmp_path / "by")}
    program = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    wall, now, monotonic = map(float, told.stdout.split())
    assert wall == pytest.approx(time.time() - YEAR_S, abs=60)
    assert now == pytest.approx(wall, abs=60)
    assert monotonic == pytest.approx(time.monotonic(), abs=60)


@pytest.mark.parametrize("by", [-YEAR_S, YEAR_S], ids=["back", "forward"])
def test_a_daemon_serves_and_updates_while_its_clock_jumps_by_a_year(
    by: int, library: Path, tmp_path: Path, cloud: CloudSimulator, west: StoredModel, east: StoredModel
):
    config, clock = tmp_path / "edge.toml", tmp_path / "by"
    config.write_text(
        f'state = "{tmp_path / "state"}"\n[cloud]\nurl = "{cloud.url}"\nkeys = ["{cloud.key.public}"]\n'
        "retry_first_s = 0.01\n[api]\nport = 0\n[monitor]\nperiod = 40\naudit_every = 2\n[probation]\nimages = 8\n"
    )
    preload = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(clock)}

    def started(check: Callable[[httpx.Client], None]) -> None:
        with running("--config", str(config), **preload) as (_, url), httpx.Client(base_url=url, timeout=60) as client:
            check(client)

    def show_until(client: httpx.Client, labels: tuple[str, ...], digest: str) -> None:
        """Show pictures until that model serves and its probation is over: other pictures might fail it."""
        deadline = time.monotonic() + 120
        number = 0
        while (status := client.get("/v1/status").json())["model"]["digest"] != digest or status["update"]["probation"]:
            assert time.monotonic() < deadline, status
            number += 1
            answer = client.post("/v1/classify", content=picture(labels[number % len(labels)]))
            assert answer.status_code == 200, answer.text

    def wait_until_ready(client: httpx.Client) -> None:
        deadline = time.monotonic() + 60
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, client.get("/v1/status").json()
            time.sleep(0.02)

    def first(client: httpx.Client) -> None:
        wait_until_ready(client)
        show_until(client, WEST, west.manifest.digest)
        clock.write_text(str(by))
        show_until(client, EAST, east.manifest.digest)  # a period, a request, a download, a trial, a swap, all after it
        status = client.get("/v1/status").json()
        assert status["counters"]["failed"] == 0
        assert status["update"]["updated_age_s"] >= 0

    def again(client: httpx.Client) -> None:
        wait_until_ready(client)
        assert client.get("/v1/status").json()["model"]["digest"] == east.manifest.digest

    clock.write_text("0")
    started(first)
    started(again)
    clock.write_text(str(-by))
    started(again)
