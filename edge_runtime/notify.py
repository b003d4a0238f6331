"""Tells systemd how the daemon is: `sd_notify(3)` in a few lines, without its library.

Each message is a datagram to the Unix socket that `NOTIFY_SOCKET` names, in the file system or, behind `@`, in the
kernel's abstract space. Outside systemd there is none, and nothing is sent.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from edge_runtime.background import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Notifier", "Watchdog"]

_STATUS_EVERY_S = 5.0
_STOP_WAIT_S = 1.0


class Notifier:
    """Sends systemd what it wants to know; does nothing where systemd did not start this process.

    Parameters
    ----------
    environment
        Of the process: `NOTIFY_SOCKET`, and for `watchdog_s` `WATCHDOG_USEC` and `WATCHDOG_PID`.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if name else None
        self.watchdog_s = _watchdog_s(environment)
        """Time in s after which systemd ends a daemon that it has not heard of; None where it does not watch."""

    @property
    def wanted(self) -> bool:
        """Whether somebody listens."""
        return self._socket is not None

    def close(self) -> None:
        """Send nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self) -> None:
        """Say that the start is over."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Say on one line what is going on, for `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def alive(self) -> None:
        """Say that all is well: the watchdog starts its time over."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._socket is not None:
            try:
                self._socket.sendto(message.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)
            except OSError:
                # A full queue or a restarting systemd: the next message tells as much.
                return


class Watchdog:
    """Repeats to systemd that the daemon is well, for as long as it is, and what it does.

    Parameters
    ----------
    notifier
        Where to.
    well
        Whether the daemon can do its work, found out by doing some. It may hang: nothing is sent then.
    status
        What is going on, on one line.
    """

    def __init__(self, notifier: Notifier, well: Callable[[], bool], status: Callable[[], str]) -> None:
        self._notifier = notifier
        self._well = well
        self._status = status
        self._shown = ""
        self._every_s = _STATUS_EVERY_S if notifier.watchdog_s is None else notifier.watchdog_s / 2
        self._thread = Background("watchdog", self._step, lambda _: self._every_s)

    def start(self) -> None:
        """Say that the daemon is ready, and start watching it."""
        self._notifier.ready()
        if self._notifier.wanted:
            self._thread.start()

    def stop(self) -> None:
        """Say that the daemon ends, and watch it no more."""
        self._notifier.stopping()
        self._thread.stop(_STOP_WAIT_S)
        self._notifier.close()

    def _step(self) -> float:
        status = self._status()
        if status != self._shown:
            self._notifier.status(status)
            self._shown = status
        if self._notifier.watchdog_s is not None and self._well():
            self._notifier.alive()
        return self._every_s


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return the watchdog's time in s; None without one, or where it is another process's."""
    microseconds, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or pid not in {"", str(os.getpid())}:
        return None
    return int(microseconds) / 1e6
