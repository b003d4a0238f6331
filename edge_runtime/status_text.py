"""The daemon's status, the JSON of `/v1/status`, as lines for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["status_line", "status_text"]

_CLASSES_SHOWN = 6
_ERRORS_SHOWN = 3
_BAR = 20
_TROUBLE = {"refused_updates": "refused", "rollbacks": "rolled back"}
_REASONS = {"refused": "refused", "rolled_back": "rolled back"}
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def status_line(fields: Mapping[str, Any]) -> str:
    """Return the status on one line."""
    model = fields["model"]
    serves = "no model yet" if model is None else f"{_kind(model)} {model['digest'][:12]} serves"
    return f"{fields['state']}; {serves}; {fields['counters']['classified']} images"


def status_text(fields: Mapping[str, Any]) -> str:
    """Return the status as lines, each with its subject in front."""
    counters = fields["counters"]
    lines = [("state", f"{fields['state']}, up {_duration(fields['uptime_s'])}")]
    if fields["problem"] is not None:
        lines.append(("problem", fields["problem"]))
    lines += _model_lines(fields["model"])
    speed = "" if fields["inference_s"] is None else f", {1000 * fields['inference_s']:.3g} ms each"
    lines.append(("images", f"{counters['classified']} classified{speed}, {counters['failed']} failed"))
    lines += _monitoring_lines(fields["monitoring"])
    lines += _update_lines(fields)
    for number, error in enumerate(fields["errors"][:_ERRORS_SHOWN]):
        times = f" ({error['times']} times)" if error["times"] > 1 else ""
        lines.append(("" if number else "errors", f"{_duration(error['age_s'])} ago{times}: {error['error']}"))
    return "\n".join(f"{subject:<11} {text}".rstrip() for subject, text in lines)


def _kind(model: Mapping[str, Any]) -> str:
    return "base model" if model["slot"] == "base" else "cut"


def _model_lines(model: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if model is None:
        return [("model", "none yet")]
    size = f"{_bytes(model['bytes'])}, {100 * model['relative_size']:.1f} % of the base's parameters"
    if model["slot"] == "base":
        return [("model", f"base model {model['digest'][:12]} ({size})")]
    signed = model["signed_at"]
    age = "" if signed is None else f", signed {time.strftime('%Y-%m-%d %H:%M', time.localtime(signed))}"
    return [
        ("model", f"cut {model['digest'][:12]} in slot {model['slot']} ({size})"),
        ("", f"variant {model['variant']}, from {model['cache_tier']}{age}"),
        ("made for", _shares(model["usage"])),
        ("accuracy", _promise(model)),
    ]


def _promise(model: Mapping[str, Any]) -> str:
    """Return in words what is promised of a cut."""
    certificate = model["certificate"]
    if certificate is not None:
        return (
            f"certified: with a probability of {100 * (1 - certificate['delta']):.0f} % no class of these loses "
            f"over {100 * certificate['epsilon']:.1f} points of accuracy"
        )
    if model["guarantee"] == "certified":
        return "certified: nothing was pruned that could change an answer"
    return "measured on the images of the search, not certified"


def _monitoring_lines(monitoring: Mapping[str, Any]) -> list[tuple[str, str]]:
    usage = monitoring["usage"]
    return [
        ("monitoring", f"{monitoring['counted']} of {monitoring['period']} predictions of this period"),
        ("in use", _shares(usage) if usage else "not known yet"),
    ]


def _update_lines(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    counters, update = fields["counters"], fields["update"]
    fetched = _bytes(counters["downloaded_bytes"])
    lines = [("cloud", f"{fields['cloud']}: {counters['cloud_requests']} requests, {fetched} fetched")]
    taken = f"{counters['swaps']} {'cut' if counters['swaps'] == 1 else 'cuts'} taken"
    if update["updated_age_s"] is not None:
        taken += f", the last {_duration(update['updated_age_s'])} ago"
    trouble = [f"{counters[name]} {text}" for name, text in _TROUBLE.items() if counters[name]]
    lines.append(("updates", "; ".join([taken, *trouble])))
    if update["download"] is not None:
        lines.append(("download", _progress(update["download"])))
    if update["probation"] is not None:
        watched = update["probation"]
        lines.append(("probation", f"the new cut has answered {watched['images']} of {watched['of']} images"))
    if update["retry_in_s"] is not None:
        lines.append(("next try", f"in {_duration(update['retry_in_s'])}"))
    lines += [(name, update[key]) for key, name in _REASONS.items() if update[key] is not None]
    return lines


def _progress(download: Mapping[str, Any]) -> str:
    share = download["bytes"] / max(1, download["of"])
    done = round(_BAR * share)
    return f"[{'#' * done}{'.' * (_BAR - done)}] {_bytes(download['bytes'])} of {_bytes(download['of'])}"


def _shares(usage: Mapping[str, float]) -> str:
    ordered = sorted(usage.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{label} {100 * share:.0f} %" for label, share in ordered[:_CLASSES_SHOWN])
    more = len(ordered) - _CLASSES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _bytes(number: int) -> str:
    amount, unit = float(number), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{number} B" if unit == "B" else f"{amount:.3g} {unit}"


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"
