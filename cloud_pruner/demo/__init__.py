"""The demo: the whole loop on one machine, with a real network, a real service and real devices."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloud_pruner.demo.errors import DemoError
from cloud_pruner.errors import MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DemoError", "play"]


def play(output: Path, *, as_json: bool) -> int:
    """Play the demo, write its report to the folder `output`, and return the exit code, 0.

    What happens is told on stdout, or on stderr where `as_json` asks for the summary on stdout.

    Raises
    ------
    DemoError
        `output` is something else than an earlier report; a process fails; or a promise of the demo does not hold (the
        report is written then).
    MissingExtraError
        A package of the extras `cloud` and `plots` is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
    try:
        # Some seconds to import, and with packages that no other command needs.
        import keras  # noqa: F401, PLC0415 - missed now rather than after the first images
        import tensorflow  # noqa: F401, ICN001, PLC0415 - likewise

        from cloud_pruner.demo.story import tell_story  # noqa: PLC0415
    except ImportError as error:
        message = f"the demo needs {error.name}, which is not installed: pip install 'capnn[cloud,plots]'"
        raise MissingExtraError(message) from error
    return tell_story(output, as_json=as_json)
