from __future__ import annotations

from edge_runtime.status import Records, status_text


def test_counters_and_the_last_error_are_kept():
    records = Records()
    records.add("classified")
    records.fail(ValueError("first"))
    records.fail(TimeoutError())

    fields = records.to_fields()

    assert fields["counters"] == {"classified": 1, "failed": 0, "cloud_requests": 0, "swaps": 0}
    assert fields["last_error"] == "TimeoutError"
    assert fields["last_error_age_s"] >= 0


def test_a_status_reads_as_text():
    fields = {
        "state": "waiting to ask for a cut",
        "model": {
            "digest": "0123456789abcdef",
            "slot": "a",
            "variant": "W",
            "cache_tier": "search",
            "relative_size": 0.412,
            "usage": {"cat": 0.25, "dog": 0.75},
        },
        "counters": {"classified": 1200, "failed": 1, "cloud_requests": 3, "swaps": 1},
        "monitoring": {"counted": 20, "period": 200, "usage": {"fox": 1.0}},
        "cloud": "http://cloud.local",
        "retry_in_s": 3.6,
        "last_error": "the cloud is away",
        "last_error_age_s": 12.3,
    }

    assert status_text(fields).splitlines() == [
        "state       waiting to ask for a cut",
        "model       0123456789ab (cut, variant W, from search; 41.2 % of the base's parameters)",
        "made for    dog 75 %, cat 25 %",
        "classified  1200 images, 1 failed",
        "monitoring  20 of 200 predictions counted: fox 100 %",
        "cloud       http://cloud.local: 3 requests, 1 swaps",
        "next try    in 4 s",
        "last error  12 s ago: the cloud is away",
    ]


def test_a_status_without_a_model_reads_as_text():
    fields = {
        "state": "fetching the base model",
        "model": None,
        "counters": {"classified": 0, "failed": 0, "cloud_requests": 1, "swaps": 0},
        "monitoring": {"counted": 0, "period": 200, "usage": {}},
        "cloud": "http://cloud.local",
        "retry_in_s": None,
        "last_error": None,
        "last_error_age_s": None,
    }

    lines = status_text(fields).splitlines()

    assert lines[1] == "model       none yet"
    assert lines[3] == "monitoring  0 of 200 predictions counted: none yet"
