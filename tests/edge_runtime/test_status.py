"""What the daemon remembers of itself, and how that reads: as text, and for Prometheus."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.metrics import metrics_text
from edge_runtime.status import COUNTERS, LATENCY_BOUNDS_S, Records
from edge_runtime.status_text import status_line, status_text

if TYPE_CHECKING:
    from prometheus_client import Metric

CUT: dict[str, Any] = {
    "digest": "0123456789abcdef" * 4,
    "base": "f" * 64,
    "slot": "a",
    "variant": "L",
    "cache_tier": "search",
    "relative_size": 0.412,
    "bytes": 1_234_567,
    "usage": {"cat": 0.25, "dog": 0.75},
    "guarantee": "certified",
    "certificate": {"epsilon": 0.03, "delta": 0.1},
    "signed_at": 1_790_000_000.0,
}
UPDATE: dict[str, Any] = {
    "retry_in_s": None,
    "download": None,
    "probation": None,
    "rolled_back": None,
    "refused": None,
    "keys": ["0" * 16],
    "serial": 1,
    "updated_age_s": None,
}


def fields(**changes: Any) -> dict[str, Any]:
    """Return the status of a daemon that has just started, with `changes`."""
    return {
        "state": "monitoring",
        "ready": True,
        "problem": None,
        "model": CUT,
        "monitoring": {"counted": 20, "period": 250, "usage": {}},
        "update": UPDATE,
        "cloud": "https://cloud.local",
        **Records().to_fields(),
        **changes,
    }


def counters(**counts: int) -> dict[str, int]:
    return {**dict.fromkeys(COUNTERS, 0), **counts}


class TestRecords:
    def test_counters_add_up_from_all_threads(self):
        records = Records()
        threads = [threading.Thread(target=lambda: [records.add("classified") for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        records.add("downloaded_bytes", 1024)

        assert records.count("classified") == 4000
        assert records.to_fields()["counters"] == counters(classified=4000, downloaded_bytes=1024)

    def test_the_last_errors_are_kept_and_one_that_comes_again_is_counted(self):
        records = Records()
        for text in ("one", "two", "three", "two", "four\nlines", "five", "six"):
            records.fail(ValueError(text))
        records.fail(TimeoutError())

        kept = records.to_fields()

        assert kept["last_error"] == "TimeoutError"
        assert kept["last_error_age_s"] >= 0
        assert [(error["error"], error["times"]) for error in kept["errors"]] == [
            ("TimeoutError", 1),
            ("six", 1),
            ("five", 1),
            ("four lines", 1),
            ("two", 2),
        ]

    def test_inferences_are_counted_by_their_time(self):
        records = Records()
        for seconds in (0.001, 0.0011, 0.5, 100.0):
            records.inferred(seconds)

        counts, total_s = records.latencies()

        assert dict(zip(LATENCY_BOUNDS_S, counts, strict=False))[0.001] == 1
        assert dict(zip(LATENCY_BOUNDS_S, counts, strict=False))[0.0025] == 2
        assert counts[-1] == 4
        assert total_s == pytest.approx(100.5021)
        assert records.to_fields()["inference_s"] == pytest.approx(100.5021 / 4)


class TestText:
    def test_a_device_that_runs_well(self):
        shown = status_text(
            fields(
                counters=counters(classified=1200, failed=1, cloud_requests=3, swaps=1, downloaded_bytes=45_600),
                inference_s=0.01234,
                uptime_s=7300,
                monitoring={"counted": 20, "period": 250, "usage": {"fox": 0.7, "owl": 0.3}},
                update={**UPDATE, "updated_age_s": 90.0},
            )
        ).splitlines()

        assert shown[0] == "state       monitoring, up 2.03 h"
        assert shown[1] == "model       cut 0123456789ab in slot a (1.23 MB, 41.2 % of the base's parameters)"
        assert re.fullmatch(r" {12}variant L, from search, signed 2026-09-2\d \d\d:\d\d", shown[2])
        assert shown[3:] == [
            "made for    dog 75 %, cat 25 %",
            "accuracy    certified: with a probability of 90 % no class of these loses over 3.0 points of accuracy",
            "images      1200 classified, 12.3 ms each, 1 failed",
            "monitoring  20 of 250 predictions of this period",
            "in use      fox 70 %, owl 30 %",
            "cloud       https://cloud.local: 3 requests, 45.6 kB fetched",
            "updates     1 cut taken, the last 1.5 min ago",
        ]

    def test_a_device_in_trouble(self):
        records = Records()
        for text in ("bad signature", "the cloud is away", "the cloud is away"):
            records.fail(ValueError(text))
        shown = status_text(
            fields(
                state="waiting",
                problem="the cloud is away",
                update={
                    **UPDATE,
                    "retry_in_s": 4.2,
                    "rolled_back": "0123: failed on an image",
                    "refused": "bad signature",
                },
                counters=counters(refused_updates=2, rollbacks=1),
                errors=records.to_fields()["errors"],
            )
        ).splitlines()

        assert shown[:2] == ["state       waiting, up 0 s", "problem     the cloud is away"]
        assert shown[-6:] == [
            "updates     0 cuts taken; 2 refused; 1 rolled back",
            "next try    in 4 s",
            "refused     bad signature",
            "rolled back 0123: failed on an image",
            "errors      0 s ago (2 times): the cloud is away",
            "            0 s ago: bad signature",
        ]

    def test_an_update_under_way(self):
        half = {"digest": "d", "bytes": 500_000, "of": 2_000_000}
        download = status_text(fields(update={**UPDATE, "download": half}))
        probation = status_text(fields(update={**UPDATE, "probation": {"images": 30, "of": 200}}))

        assert "download    [#####...............] 500 kB of 2 MB" in download.splitlines()
        assert "probation   the new cut has answered 30 of 200 images" in probation.splitlines()

    def test_a_device_without_a_model(self):
        none = fields(model=None, ready=False, problem="there is no model yet", state="requesting")

        assert "model       none yet" in status_text(none).splitlines()
        assert status_line(none) == "requesting; no model yet; 0 images"

    def test_a_base_model_and_many_classes(self):
        base = {**CUT, "slot": "base", "relative_size": 1.0, "usage": {}}
        usage = {f"class {number}": 0.1 for number in range(10)}
        shown = status_text(fields(model=base, monitoring={"counted": 0, "period": 250, "usage": usage})).splitlines()

        assert shown[1] == "model       base model 0123456789ab (1.23 MB, 100.0 % of the base's parameters)"
        assert any(line.startswith("in use") and line.endswith("class 5 10 % and 4 more") for line in shown)
        assert status_line(fields(model=base)) == "monitoring; base model 0123456789ab serves; 0 images"


class TestMetrics:
    def metrics(self, records: Records, **changes: Any) -> dict[str, Metric]:
        text = metrics_text(fields(**records.to_fields(), **changes), records.latencies()).decode()
        return {family.name: family for family in text_string_to_metric_families(text)}

    def test_everything_of_the_status_is_there(self):
        records = Records()
        records.add("classified", 7)
        records.inferred(0.003)
        found = self.metrics(records, monitoring={"counted": 20, "period": 250, "usage": {'the "cat"': 0.25}})

        assert found["capnn_images_classified"].samples[0].value == 7
        assert found["capnn_model_info"].samples[0].labels["digest"] == CUT["digest"]
        assert found["capnn_model_bytes"].samples[0].value == 1_234_567
        assert found["capnn_class_usage_ratio"].samples[0].labels == {"class": 'the "cat"'}
        assert found["capnn_state"].samples[0].labels == {"state": "monitoring"}
        assert found["capnn_ready"].samples[0].value == 1
        buckets = {
            sample.labels["le"]: sample.value
            for sample in found["capnn_inference_seconds"].samples
            if sample.name.endswith("_bucket")
        }
        assert (buckets["0.0025"], buckets["0.005"], buckets["+Inf"]) == (0, 1, 1)

    def test_what_there_is_nothing_of_is_left_out(self):
        found = self.metrics(Records(), model=None, ready=False)

        assert "capnn_model_info" not in found
        assert "capnn_last_update_age_seconds" not in found
        assert found["capnn_ready"].samples[0].value == 0

    def test_names_and_units_are_as_prometheus_wants_them(self):
        """The rules of `promtool check metrics`: base units at the end, `_total` for counters alone, help."""
        update = {**UPDATE, "retry_in_s": 1.0, "updated_age_s": 1.0, "download": {"bytes": 1, "of": 2, "digest": "d"}}
        found = self.metrics(Records(), update=update)

        assert len(found) >= 20
        for name, family in found.items():
            assert re.fullmatch(r"capnn_[a-z]+(_[a-z]+)*", name)
            assert family.documentation.endswith(".")
            assert not name.endswith(("_count", "_sum", "_bucket", "_total"))
            assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)(_|$)", name)
            assert (family.type == "counter") == any(sample.name.endswith("_total") for sample in family.samples)
