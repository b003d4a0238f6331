"""How often a device may ask, counted by one process or by several together."""

from __future__ import annotations

import shutil

import pytest

from cloud_pruner.service.rates import DeviceRates
from tests.cache.redis_server import RedisServer


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_so_many_at_once_and_then_so_many_in_each_period():
    clock = Clock()
    rates = DeviceRates("3/minute", clock=clock)
    assert [rates.retry_after_s("porch") for _ in range(3)] == [None] * 3
    assert rates.retry_after_s("porch") == 20
    assert rates.retry_after_s("gate") is None, "each device has its own"
    clock.now += 19
    assert rates.retry_after_s("porch") == 1
    clock.now += 1
    assert rates.retry_after_s("porch") is None
    assert rates.retry_after_s("porch") == 20
    clock.now += 3600
    assert [rates.retry_after_s("porch") for _ in range(4)] == [None, None, None, 20]


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server on this machine")
def test_on_a_server_all_count_together_and_without_it_each_for_itself(tmp_path, caplog):
    clock = Clock()
    with RedisServer(tmp_path) as server:
        one, other = (DeviceRates("3/hour", server.url, clock) for _ in range(2))
        assert [rates.retry_after_s("porch") for rates in (one, other, one)] == [None] * 3
        assert 3500 < other.retry_after_s("porch") <= 3600
        server.kill()
        assert [other.retry_after_s("porch") for _ in range(4)] == [None, None, None, 1200]
        assert caplog.text.count("this worker counts for itself") == 1
