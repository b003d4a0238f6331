"""What Prometheus is told: the daemon's status and the times of its inferences, in its text format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from edge_runtime.status import COUNTERS, LATENCY_BOUNDS_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client import Metric

__all__ = ["CONTENT_TYPE", "metrics_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTER_NAMES = {
    "classified": "capnn_images_classified",
    "failed": "capnn_images_failed",
    "cloud_requests": "capnn_cloud_requests",
    "swaps": "capnn_model_swaps",
    "rollbacks": "capnn_model_rollbacks",
    "refused_updates": "capnn_updates_refused",
    "downloaded_bytes": "capnn_downloaded_bytes",
}


def metrics_text(fields: Mapping[str, Any], latencies: tuple[Sequence[int], float]) -> bytes:
    """Return the metrics: of a status as `EdgeDaemon.status`, and latencies as `Records.latencies`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Status(fields, latencies))
    return generate_latest(registry)


class _Status(Collector):
    def __init__(self, fields: Mapping[str, Any], latencies: tuple[Sequence[int], float]) -> None:
        self._fields = fields
        self._latencies = latencies

    def collect(self) -> Iterator[Metric]:
        fields = self._fields
        for name, help_text in COUNTERS.items():
            yield CounterMetricFamily(_COUNTER_NAMES[name], _sentence(help_text), fields["counters"][name])
        yield self._inferences()
        yield from _model(fields["model"])
        yield from _monitoring(fields["monitoring"])
        yield GaugeMetricFamily("capnn_ready", "Whether there is a model that serves.", float(fields["ready"]))
        yield GaugeMetricFamily(
            "capnn_problem", "Whether something is wrong that the status names.", float(fields["problem"] is not None)
        )
        yield GaugeMetricFamily("capnn_uptime_seconds", "Time since the daemon's start.", fields["uptime_s"])
        yield from _update(fields["state"], fields["update"])

    def _inferences(self) -> Metric:
        counts, total_s = self._latencies
        buckets = [(f"{bound:g}", float(count)) for bound, count in zip(LATENCY_BOUNDS_S, counts, strict=False)]
        return HistogramMetricFamily(
            "capnn_inference_seconds",
            "Time of the inference alone, for each image.",
            [*buckets, ("+Inf", float(counts[-1]))],
            total_s,
        )


def _update(state: str, update: Mapping[str, Any]) -> Iterator[Metric]:
    states = GaugeMetricFamily("capnn_state", "1 for what the daemon does now.", labels=["state"])
    states.add_metric([state], 1.0)
    yield states
    if update["updated_age_s"] is not None:
        yield GaugeMetricFamily(
            "capnn_last_update_age_seconds", "Time since a new model came to serve.", update["updated_age_s"]
        )
    if update["retry_in_s"] is not None:
        yield GaugeMetricFamily("capnn_retry_seconds", "Time until the next try.", update["retry_in_s"])
    download = update["download"]
    if download is not None:
        yield GaugeMetricFamily(
            "capnn_download_progress_bytes", "Bytes here of the file being fetched.", download["bytes"]
        )
        yield GaugeMetricFamily("capnn_download_size_bytes", "Size of the file being fetched.", download["of"])
    yield GaugeMetricFamily(
        "capnn_probation", "Whether a new cut is being watched.", float(update["probation"] is not None)
    )


def _model(model: Mapping[str, Any] | None) -> Iterator[Metric]:
    if model is None:
        return
    labels = {name: str(model[name]) for name in ("digest", "base", "slot", "variant", "guarantee")}
    yield InfoMetricFamily("capnn_model", "The model that serves.", labels)
    yield GaugeMetricFamily("capnn_model_bytes", "Size of its file.", model["bytes"])
    yield GaugeMetricFamily(
        "capnn_model_parameters_ratio", "Its parameters relative to the base model's.", model["relative_size"]
    )
    if model["signed_at"] is not None:
        yield GaugeMetricFamily(
            "capnn_model_signed_timestamp_seconds", "When the cloud signed its manifest.", model["signed_at"]
        )


def _monitoring(monitoring: Mapping[str, Any]) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "capnn_monitoring_counted_images", "Predictions counted in this period.", monitoring["counted"]
    )
    yield GaugeMetricFamily("capnn_monitoring_period_images", "Predictions in a period.", monitoring["period"])
    usage = GaugeMetricFamily("capnn_class_usage_ratio", "Estimated share of a class in use.", labels=["class"])
    for label, share in monitoring["usage"].items():
        usage.add_metric([label], share)
    yield usage


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
