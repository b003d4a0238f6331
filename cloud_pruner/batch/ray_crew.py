"""Workers that are actors on a Ray cluster, of this machine alone or of many.

The profile goes into the cluster's object store once, file by file, and each machine writes it to its own disk, where
actors open it as any other: memory-mapped, and checked against its digests. So machines need no disk in common, only
the same version of capnn. A cluster that was begun here tells nobody of it, and ends with the batch. What Ray
prints, if an actor dies, goes to stderr.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cloud_pruner.batch.scheduling import Done, Lost, Ready, Unfit
from cloud_pruner.batch.work import Workbench
from cloud_pruner.errors import MissingExtraError, ProfileError, PrunerError
from cloud_pruner.profile import Profile
from edge_runtime.durable import replaced_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType, TracebackType

    from typing_extensions import Self

    from cloud_pruner.batch.scheduling import Event
    from cloud_pruner.batch.work import Answer, Task

__all__ = ["RayCrew"]

# Of a cluster begun here: what answers take on their way, besides the profile.
_STORE_BYTES: Final = 256 << 20
_FORGET_SECONDS: Final = 10.0
_KNOCK_SECONDS: Final = 5.0


class RayCrew:
    """Actors that take one task after the other; while one is done, the next is on its way.

    Parameters
    ----------
    profile
        As opened here.
    size
        How many actors at most; a cluster that has fewer cores has as many as these.
    address
        Of a cluster, as Ray takes it ("auto", "HOST:6379", "ray://HOST:10001"); None: one of this machine alone, for
        as long as this lasts, or the one that this process is on already.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    PrunerError
        There is no such cluster.
    """

    depth = 2

    def __init__(self, profile: Profile, size: int, address: str | None = None) -> None:
        self._ray = _ray()
        with contextlib.ExitStack() as end:
            if not self._ray.is_initialized():
                self._join(end, profile, size, address)
            self.size = max(1, min(size, int(self._ray.cluster_resources().get("CPU", 1))))
            self._files = _in_store(self._ray, profile.folder)
            self._end = end.pop_all()
        self._digest = profile.digest
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        self._numbers = itertools.count()
        self._actors: dict[int, Any] = {}
        self._asked: dict[int, deque[Any]] = {}
        self._ready: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def hire(self) -> int:
        """As `Crew`."""
        number = next(self._numbers)
        actor = self._actors[number] = self._actor.remote()
        self._asked[number] = deque([actor.prepare.remote(self._files, self._digest)])
        return number

    def give(self, worker: int, task: Task) -> None:
        """As `Crew`."""
        self._asked[worker].append(self._actors[worker].do.remote(task))

    def wait(self) -> list[Event]:
        """As `Crew`."""
        # Actors answer in the order in which they were asked: what comes first says which task it was that failed.
        first = {asked[0]: number for number, asked in self._asked.items() if asked}
        ready, _ = self._ray.wait(list(first), num_returns=1)
        return [self._heard(first[reference]) for reference in ready]

    def close(self) -> None:
        """As `Crew`; ends the cluster too, if it was begun here."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            if forgotten := [self._actors[number].forget.remote() for number in self._ready]:
                self._ray.wait(forgotten, num_returns=len(forgotten), timeout=_FORGET_SECONDS)
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._end.close()

    def _heard(self, number: int) -> Event:
        reference = self._asked[number].popleft()
        errors = self._ray.exceptions
        try:
            answer: Answer | None = self._ray.get(reference)
        except errors.RayTaskError as error:
            self._dismiss(number)
            return Unfit(number, str(error.cause) or type(error.cause).__name__)
        except errors.RayError as error:
            self._dismiss(number)
            return Lost(number, type(error).__name__)
        if answer is None:
            self._ready.add(number)
            return Ready(number)
        return Done(number, answer)

    def _dismiss(self, number: int) -> None:
        self._ray.kill(self._actors.pop(number))
        self._ready.discard(number)
        del self._asked[number]

    def _join(self, end: contextlib.ExitStack, profile: Profile, size: int, address: str | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        # All the same Ray tells of actors that died, by print.
        end.enter_context(contextlib.redirect_stdout(sys.stderr))
        try:
            if address is not None:
                _knock(address)
                self._ray.init(address, **quiet)
            else:
                folder = end.enter_context(tempfile.TemporaryDirectory(prefix="capnn-ray-", ignore_cleanup_errors=True))
                self._ray.init(
                    "local",
                    num_cpus=size,
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES + sum(path.stat().st_size for path in _files(profile.folder)),
                    _temp_dir=folder,
                    **quiet,
                )
        except (OSError, RuntimeError, ValueError) as error:
            where = f"the cluster at {address}" if address else "a cluster on this machine"
            why = " ".join(str(error).split())
            raise PrunerError(f"Ray: {where} cannot be used: {why}: see that it runs, and with the same Ray") from error
        end.callback(self._ray.shutdown)


class _Actor:
    """A worker of a batch, in a process that Ray has started."""

    def __init__(self) -> None:
        self._bench: Workbench | None = None
        self._folder: Path | None = None

    def prepare(self, files: Mapping[str, Any], digest: str) -> None:
        # One folder for all actors of a machine and a user. What lies there is believed for its digests alone.
        self._folder = Path(tempfile.gettempdir()) / f"capnn-{os.getuid()}-{digest}"
        self._bench = Workbench(_opened(self._folder, files, digest))

    def do(self, task: Task) -> Answer:
        assert self._bench is not None
        return self._bench.do(task)

    def forget(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _opened(folder: Path, files: Mapping[str, Any], digest: str) -> Profile:
    """Open the profile in `folder`, written there from the object store unless another actor has done so."""
    with contextlib.suppress(ProfileError):
        return _checked(folder, digest)
    ray = _ray()
    with contextlib.suppress(OSError), replaced_folder(folder) as made:  # another actor may be first
        for name, content in files.items():
            ray.get(content).tofile(made / name)
    return _checked(folder, digest)


def _checked(folder: Path, digest: str) -> Profile:
    profile = Profile.open(folder)
    if profile.digest != digest:
        raise ProfileError(f"{folder}: is another profile than its name says: remove it")
    return profile


def _in_store(ray: ModuleType, folder: Path) -> dict[str, Any]:
    """Put the files of a profile into the object store; return name -> reference."""
    return {path.name: ray.put(np.fromfile(path, np.uint8)) for path in _files(folder)}


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would go on trying for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


def _ray() -> ModuleType:
    # Before Ray is loaded: it neither tells its makers that it runs, nor warns of settings for other hardware, and a
    # cluster begun here gives way to other processes as little as processes of our own would.
    for name, value in (
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),
        ("RAY_worker_niceness", "0"),
    ):
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.exceptions  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("--engine ray needs capnn[ray]: pip install 'capnn[ray]'") from error
    module: ModuleType = ray
    return module
