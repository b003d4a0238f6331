"""Where experiments are done: networks, their profiles, what was measured, and processes that measure more."""

from __future__ import annotations

import fcntl
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.experiments.measuring import BasicTask, Measurer, Task
from benchmarks.experiments.network_profiles import Source, find_preferences, open_profile, profile_folder
from benchmarks.experiments.store import Store
from benchmarks.experiments.wishes import CAPTOR
from benchmarks.networks.reference import REFERENCES
from cloud_pruner.evaluation_workers import answers
from cloud_pruner.progress import no_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.experiments.store import Row
    from benchmarks.experiments.wishes import Wish
    from benchmarks.networks.reference import Reference
    from cloud_pruner.profile import Profile
    from cloud_pruner.progress import Progress

__all__ = ["Lab", "LabError", "Settings", "locked"]


class LabError(ValueError):
    """An experiment cannot be done here; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the figures of a report depend on.

    Attributes
    ----------
    quick
        Fewer users, and fewer networks.
    seed
        Of the users that are drawn.
    networks
        Names of `REFERENCES` to look at; None: all that an experiment asks for.
    users
        How many users, or sets of classes, there are of each K; None: as many as an experiment thinks right.
    """

    quick: bool = False
    seed: int = 0
    networks: tuple[str, ...] | None = None
    users: int | None = None


class Lab:
    """What experiments work with.

    Parameters
    ----------
    folder
        For all that is kept: rows, networks and profiles.
    jobs
        Processes that measure.
    tell
        Called with what is being done, how much is done, and of how much.
    references
        The networks that there are.

    Raises
    ------
    LabError
        The settings name a network that there is not.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings = Settings(),
        *,
        jobs: int = 1,
        tell: Progress = no_progress,
        references: Mapping[str, Reference] = REFERENCES,
    ) -> None:
        for name in settings.networks or ():
            if name not in references:
                raise LabError(f"network '{name}' is unknown: choose among {', '.join(references)}")
        self.folder, self.settings, self.jobs = folder, settings, jobs
        self.store = Store(folder)
        self.left_out: dict[str, str] = {}
        """Networks that were asked for and are not available -> why, in one line."""
        self.progress = tell
        self._references = references
        self._sources: dict[str, Source] = {}

    @property
    def quick(self) -> bool:
        """Whether minutes count more than narrow intervals."""
        return self.settings.quick

    @property
    def seed(self) -> int:
        """Of whatever an experiment draws."""
        return self.settings.seed

    def users(self, usual: Mapping[bool, int]) -> int:
        """Return how many users, or sets of classes, to draw for each K; `usual`: in quick runs and in others."""
        return self.settings.users or usual[self.quick]

    def references(self, *names: str) -> list[Reference]:
        """Return those of the networks that are available, in the order given; without names all that there are.

        Raises
        ------
        LabError
            None is.
        """
        asked = names or tuple(self._references)
        wanted = [name for name in asked if self.settings.networks is None or name in self.settings.networks]
        for name in wanted:
            if not self._references[name].available():
                self.left_out[name] = self._references[name].why_not()
        found = [self._references[name] for name in wanted if name not in self.left_out]
        if not found:
            why = "; ".join(f"{name}: {self.left_out.get(name, 'not asked for')}" for name in asked)
            raise LabError(f"none of its networks is here ({why})")
        return found

    def derive(self, name: str, reference: Reference, build: Callable[[], Any]) -> None:
        """Make `name` a network like others, for profiles and wishes: what `build` gives, on the reference's images.

        `build`, which returns the Keras model, is called when its first profile is made.
        """
        self._sources[name] = Source(build, reference.preprocessing, reference.train_images, reference.unseen_images)

    def profile(self, network: str, *, depth: int | None = None, gradients: bool = True) -> Profile:
        """Open the profile of a network, made now where there is none in the folder.

        Parameters
        ----------
        depth
            How many of the last weight layers it is of; None: all.
        gradients
            Whether it has the gradients of the Keras network, which variant L's order of units is better with.
        """
        return open_profile(
            self.folder,
            network,
            depth,
            gradients=gradients,
            source=self._source(network),
            progress=self.progress,
        )

    def once(self, table: str, key: str, compute: Callable[[], Sequence[Row]]) -> list[Row]:
        """Return the rows of `key` in a table of the store: read back, or else computed."""
        return self.store.once(table, key, compute)

    def measure(self, wishes: Sequence[Wish], table: str) -> list[Row]:
        """Return the rows of wishes, in their order; what is not in the store is measured.

        Wishes that are measured alike (`Wish.measured`) share one row.
        """
        missing = {wish.key: wish.measured for wish in wishes if not self.store.has(table, wish.key)}
        if missing:
            # Profile by profile: each process keeps but the last ones open.
            tasks = sorted((self._task(wish) for wish in missing.values()), key=lambda task: str(task.profile))
            self._make_basic_tables(tasks)
            with closing(answers(Measurer, tasks, self.jobs)) as measured:
                for done, (position, row) in enumerate(measured, 1):
                    wish = tasks[position].wish
                    self.store.keep(table, wish.key, [row])
                    self.progress(f"{wish.network}, {wish.method}, K = {len(wish.classes)}", done, len(tasks))
        return [row for wish in wishes for row in self.store.once(table, wish.key, _nothing)]

    def _task(self, wish: Wish) -> Task:
        folder = profile_folder(self.folder, wish.network, wish.depth, gradients=True)
        if not folder.exists():
            self.profile(wish.network, depth=wish.depth)
        if wish.method == CAPTOR:
            find_preferences(self.folder, wish.network, self._source(wish.network), self.progress)
        return Task(wish, folder)

    def _make_basic_tables(self, tasks: Sequence[Task]) -> None:
        """Make what method B needs once for a profile, before several processes would each begin to."""
        counts = Counter(BasicTask(task.wish.epsilon, task.profile) for task in tasks if task.wish.method == "B")
        with closing(answers(Measurer, list(counts), self.jobs)) as made:
            for done, _ in enumerate(made, 1):
                self.progress("B: offline part", done, len(counts))

    def _source(self, network: str) -> Source:
        if network not in self._sources:
            reference = self._references[network]
            self.derive(network, reference, reference.build)
        return self._sources[network]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a work folder to this process.

    Raises
    ------
    LabError
        Another one works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                f"{folder}: another process works there: wait for it, or give another folder with -o"
            ) from None
        yield


def _nothing() -> Sequence[Row]:
    raise AssertionError("measured and kept above")
