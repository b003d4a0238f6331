"""The daemon's process: the daemon and everything around it, from the start to a signal."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from edge_runtime.background import Background
from edge_runtime.http_server import listen, listen_unix, serve, url_of
from edge_runtime.notify import Notifier, Watchdog
from edge_runtime.status_text import status_line

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from edge_runtime.config import ApiConfig, EdgeConfig, WatchConfig
    from edge_runtime.daemon import EdgeDaemon

__all__ = ["run_daemon"]

_STOP_WAIT_S = 5.0


def run_daemon(config: EdgeConfig) -> None:
    """Serve until SIGTERM or SIGHUP, which end the process with 0, or SIGINT, which is a KeyboardInterrupt.

    Raises
    ------
    ConfigError
        The address, the state folder or the watched folder cannot be used.
    """
    _log_to_stderr()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _hang_up)

    from edge_runtime.api import make_app  # noqa: PLC0415 - a wrong setting is told without waiting for it
    from edge_runtime.daemon import EdgeDaemon  # noqa: PLC0415 - likewise

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listening(config.api))
        daemon = stack.enter_context(EdgeDaemon(config))
        if config.watch is not None:
            _watch(config.watch, daemon, stack)
        if config.mqtt is not None:
            from edge_runtime.mqtt import MqttPublisher  # noqa: PLC0415 - needs an extra

            publisher = MqttPublisher(config.mqtt, config.device, daemon.status)
            publisher.start()
            stack.callback(publisher.stop)
        watchdog = Watchdog(Notifier(), daemon.works, lambda: status_line(daemon.status()))
        print(f"capnn-edge: serving on {url_of(listener)}", flush=True)
        watchdog.start()
        stack.callback(watchdog.stop)
        serve(make_app(daemon), listener)


def _listening(api: ApiConfig) -> contextlib.AbstractContextManager[socket.socket]:
    return listen(api.host, api.port) if api.socket is None else listen_unix(api.socket)


def _watch(config: WatchConfig, daemon: EdgeDaemon, stack: contextlib.ExitStack) -> None:
    from edge_runtime.watched_folder import WatchedFolder  # noqa: PLC0415 - few want one

    folder = WatchedFolder(
        config,
        lambda image: daemon.classify(lambda classifier: classifier.classify(image)),
        lambda: daemon.ready,
        bytes_max=daemon.config.api.body_bytes_max,
    )
    thread = Background("watched folder", folder.step, lambda _: config.every_s)
    thread.start()
    stack.callback(thread.stop, _STOP_WAIT_S)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _hang_up(_number: int, _frame: FrameType | None) -> None:
    # The server ends gracefully on SIGTERM; before it runs and after it, `_terminate` does.
    os.kill(os.getpid(), signal.SIGTERM)


class _JournalFormatter(logging.Formatter):
    """Puts the priority in front of each line, where systemd's journal reads it off."""

    _PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"), (0, "<7>"))

    def format(self, record: logging.LogRecord) -> str:
        priority = next(mark for level, mark in self._PRIORITIES if record.levelno >= level)
        return "\n".join(priority + line for line in super().format(record).splitlines())


def _log_to_stderr() -> None:
    """Log lines for people, or for the journal where stderr leads there; it adds time and name by itself."""
    handler = logging.StreamHandler(sys.stderr)
    if _leads_to_journal(2):
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("capnn-edge: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _leads_to_journal(descriptor: int) -> bool:
    """Whether systemd has said so, and nobody has put another stream in that one's place."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    stream = os.fstat(descriptor)
    return named == f"{stream.st_dev}:{stream.st_ino}"
