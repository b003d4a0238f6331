"""One computation for all who ask for the same at once: threads, processes, and stores that fail meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cache import LayeredStore, MemoryStore, PlanCache, RedisStore, SqliteStore, exact_key, plan_key
from tests.cache.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = plan_key(exact_key(model="5f2c", epsilon=0.03), (2, 7), (0.75, 0.25))
processes = multiprocessing.get_context("spawn")


def computed_once(plans: PlanCache, compute: Callable[[], bytes]) -> bytes:
    """What a service does with a request."""
    found = plans.lookup(KEY)
    if found is None:
        with plans.flight(KEY):
            found = plans.lookup(KEY, again=True)
            if found is None:
                value = compute()
                plans.store(KEY, value, seconds=2.0)
                return value
    return found.value


def ask_at_once(plans: list[PlanCache], requests: int, compute: Callable[[], bytes]) -> list[bytes]:
    answers: list[bytes] = []
    start = threading.Barrier(requests)

    def ask(number: int) -> None:
        start.wait()
        answers.append(computed_once(plans[number % len(plans)], compute))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_a_thousand_identical_requests_at_once_cost_one_computation(tmp_path: Path) -> None:
    computed: list[int] = []
    entered = threading.Event()

    def compute() -> bytes:
        computed.append(1)
        entered.wait(0.2)  # let the others come
        return b"a plan"

    with PlanCache(LayeredStore(MemoryStore(1 << 20), SqliteStore(tmp_path / "plans.sqlite"))) as plans:
        assert ask_at_once([plans], 1000, compute) == [b"a plan"] * 1000
        assert len(computed) == 1
        exact = plans.statistics().exact
        assert (exact.hits, exact.misses, exact.seconds_saved) == (999, 1, 2.0 * 999)


def test_several_caches_on_one_file_compute_once_as_processes_would(tmp_path: Path) -> None:
    computed: list[int] = []

    def compute() -> bytes:
        computed.append(1)
        time.sleep(0.1)
        return b"a plan"

    plans = [PlanCache(LayeredStore(MemoryStore(1 << 20), SqliteStore(tmp_path / "plans.sqlite"))) for _ in range(4)]
    assert ask_at_once(plans, 40, compute) == [b"a plan"] * 40
    assert len(computed) == 1
    for one in plans:
        one.close()


def test_several_caches_on_one_server_compute_once_as_machines_would(redis_url: str) -> None:
    computed: list[int] = []

    def compute() -> bytes:
        computed.append(1)
        time.sleep(0.1)
        return b"a plan"

    plans = [PlanCache(LayeredStore(MemoryStore(1 << 20), RedisStore(redis_url, timeout=10))) for _ in range(4)]
    assert ask_at_once(plans, 100, compute) == [b"a plan"] * 100
    assert len(computed) == 1
    for one in plans:
        one.close()


def test_a_computation_that_fails_lets_the_next_one_try() -> None:
    with PlanCache(LayeredStore(MemoryStore(1 << 20))) as plans:
        with pytest.raises(ZeroDivisionError):
            computed_once(plans, lambda: b"" * (1 // 0))
        assert computed_once(plans, lambda: b"a plan") == b"a plan"


def test_different_keys_do_not_wait_for_each_other() -> None:
    with PlanCache(LayeredStore(MemoryStore(1 << 20))) as plans, plans.flight(KEY), plans.flight("another"):
        pass


def test_work_that_takes_longer_than_the_lock_keeps_it(tmp_path: Path) -> None:
    def open_cache() -> PlanCache:
        return PlanCache(LayeredStore(SqliteStore(tmp_path / "plans.sqlite")), lock_seconds=2.0)

    with open_cache() as holder, open_cache() as other:
        left = threading.Event()
        entered_after: list[bool] = []

        def wait() -> None:
            with other.flight(KEY):
                entered_after.append(left.is_set())

        with holder.flight(KEY):
            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(3.0)
            assert entered_after == []
            left.set()
        waiting.join()
        assert entered_after == [True]


def test_after_the_longest_wait_one_goes_on_without_holding() -> None:
    with PlanCache(LayeredStore(MemoryStore(1 << 20)), wait_seconds=0.05) as plans, plans.flight(KEY):
        entered: list[int] = []

        def enter() -> None:
            with plans.flight(KEY):
                entered.append(1)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(timeout=10)
        assert entered == [1]
    with PlanCache(LayeredStore(MemoryStore(1 << 20)), wait_seconds=0.05) as plans, plans.flight(KEY):
        pass  # what timed out left nothing behind


def test_without_a_store_that_works_threads_still_take_turns(tmp_path: Path) -> None:
    file = SqliteStore(tmp_path / "plans.sqlite")
    inside: list[int] = []
    most: list[int] = []
    with PlanCache(LayeredStore(file)) as plans:
        file.close()

        def enter() -> None:
            with plans.flight(KEY):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.01)
                inside.pop()

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 8


def hold_until_killed(path: Path) -> None:
    with PlanCache(LayeredStore(SqliteStore(path)), lock_seconds=1.0) as plans, plans.flight(KEY):
        plans.store("held", b"", seconds=0.0)
        time.sleep(600)


def test_a_holder_that_is_killed_delays_others_by_the_locks_time_at_most(tmp_path: Path) -> None:
    path = tmp_path / "plans.sqlite"
    holder = processes.Process(target=hold_until_killed, args=(path,))
    with PlanCache(LayeredStore(SqliteStore(path)), lock_seconds=1.0, wait_seconds=300.0) as plans:
        holder.start()
        while plans.lookup("held") is None:
            assert holder.exitcode is None
            time.sleep(0.01)
        holder.kill()
        holder.join()
        began = time.monotonic()
        with plans.flight(KEY):
            waited = time.monotonic() - began
        assert waited < 30.0  # the longest wait is ten times this; the lock's time is a thirtieth


def ask_from_a_process(path: Path, start: object, computed: Path) -> None:
    def compute() -> bytes:
        (computed / str(os.getpid())).touch()
        time.sleep(0.2)
        return b"a plan"

    with PlanCache(LayeredStore(MemoryStore(1 << 20), SqliteStore(path))) as plans:
        start.wait(timeout=60)  # type: ignore[attr-defined]
        assert ask_at_once([plans], 10, compute) == [b"a plan"] * 10


def test_threads_of_several_processes_compute_once(tmp_path: Path) -> None:
    computed = tmp_path / "computed"
    computed.mkdir()
    start = processes.Barrier(3)
    arguments = (tmp_path / "plans.sqlite", start, computed)
    asking = [processes.Process(target=ask_from_a_process, args=arguments) for _ in range(3)]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
    assert [process.exitcode for process in asking] == [0, 0, 0]
    assert len(list(computed.iterdir())) == 1


def test_a_server_that_dies_in_mid_flight_holds_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    with RedisServer(folder) as server:  # noqa: SIM117 - the server outlives the cache
        with PlanCache(
            LayeredStore(MemoryStore(1 << 20), RedisStore(server.url, timeout=10)), lock_seconds=0.2
        ) as plans:
            with plans.flight(KEY):
                server.kill()
                time.sleep(0.3)  # the renewal meets the fault
            assert computed_once(plans, lambda: b"a plan") == b"a plan"
            assert plans.statistics().stores[1].faults > 0
