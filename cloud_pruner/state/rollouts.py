"""Which profile of a model serves which device: a new one is tried by a share of them first, and can be taken back.

A device's place between 0 and 1 follows from the model, the candidate and its own name: every worker finds the same
without asking, and whoever has the candidate at one share has it at every larger one. Another candidate is tried by
other devices first.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select, update

from cloud_pruner.errors import NameTakenError, RequestError, UnknownNameError
from cloud_pruner.state.names import checked_name, line_of
from cloud_pruner.state.tables import PROFILES, ROLLOUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from cloud_pruner.state.database import Database

__all__ = ["Rollout", "Rollouts", "profile_of"]

_SHOWN: Final = 12  # digits of a digest, in a message
_FIELDS: Final = (ROLLOUTS.c.model, ROLLOUTS.c.current, ROLLOUTS.c.candidate, ROLLOUTS.c.share)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rollout:
    """Which profiles of a model are served.

    Attributes
    ----------
    model
        Its name.
    current
        Digest of the profile that devices are served with.
    candidate
        Digest of the one that some are served with instead, on trial; None without one.
    share
        How many of them, in (0, 1]; 0 without a candidate.
    """

    model: str
    current: str
    candidate: str | None
    share: float


def profile_of(rollout: Rollout, device: str) -> str:
    """Return the digest of the profile that serves a device."""
    if rollout.candidate is None:
        return rollout.current
    named = f"{rollout.model}\0{rollout.candidate}\0{device}"
    digest = hashlib.sha256(named.encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2.0**64
    return rollout.candidate if place < rollout.share else rollout.current


class Rollouts:
    """The rollouts of all models; for any number of threads. Every method raises StateError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, model: str, *profiles: str) -> Rollout:
        """Note which profiles of a model the settings list, when a service starts; return what is served.

        The first one is current where nothing is known of the model, or where the current one is not listed any more;
        a candidate that is not listed any more is taken back.
        """
        checked_name(model, "model")
        with self._database.writing() as connection:
            connection.execute(
                self._database.insert(ROLLOUTS)
                .values(model=model, current=profiles[0], candidate=None, share=0.0)
                .on_conflict_do_nothing(index_elements=[ROLLOUTS.c.model])
            )
            known = _locked(connection, model)
            listed = connection.execute(select(PROFILES.c.profile).where(PROFILES.c.model == model)).scalars().all()
            if set(listed) != set(profiles):
                connection.execute(delete(PROFILES).where(PROFILES.c.model == model))
                connection.execute(
                    insert(PROFILES), [{"model": model, "profile": one} for one in dict.fromkeys(profiles)]
                )
            current = known.current if known.current in profiles else profiles[0]
            candidate = known.candidate if known.candidate in profiles and known.candidate != current else None
            served = Rollout(model, current, candidate, known.share if candidate else 0.0)
            if served != known:
                _log.warning(
                    "model %s: of the profiles %s… and %s… not both are listed any more: %s… is current",
                    model,
                    known.current[:_SHOWN],
                    (known.candidate or "none")[:_SHOWN],
                    current[:_SHOWN],
                )
                _change(connection, model, current=current, candidate=candidate, share=served.share)
        return served

    def get(self, model: str) -> Rollout | None:
        """Return what is served of a model; None where no service has begun with it."""
        return self.all().get(model)

    def all(self) -> dict[str, Rollout]:
        """Return what is served of each model."""
        with self._database.reading() as connection:
            rows = connection.execute(select(*_FIELDS).order_by(ROLLOUTS.c.model))
            return {row.model: Rollout(*row) for row in rows}

    def listed(self, model: str) -> tuple[str, ...]:
        """Return the digests of the profiles of a model that can be served."""
        with self._database.reading() as connection:
            return _listed(connection, model)

    def start(self, model: str, candidate: str, share: float) -> Rollout:
        """Serve a share of the devices with another profile.

        Parameters
        ----------
        model
            Its name.
        candidate
            The digest of the profile, or as much of its beginning as no other has.
        share
            Of the devices, in (0, 1].

        Raises
        ------
        RequestError
            The share is none, or the profile is not listed, or is the current one.
        UnknownNameError
            No service has begun with this model.
        NameTakenError
            Another profile is on trial.
        """
        _check_share(share)
        with self._database.writing() as connection:
            known = _locked(connection, model)
            digest = _named(candidate, _listed(connection, model), model)
            if digest == known.current:
                raise RequestError(f"profile {digest[:_SHOWN]}… is current for model {model}: name another one")
            if known.candidate not in (None, digest):
                raise NameTakenError(
                    f"model {model} has {known.candidate[:_SHOWN]}… on trial: finish it, or take it back, first"
                )
            _change(connection, model, candidate=digest, share=share)
        return Rollout(model, known.current, digest, share)

    def widen(self, model: str, share: float) -> Rollout:
        """Serve more of the devices with the profile on trial.

        Raises
        ------
        RequestError
            The share is none, or smaller than it was.
        UnknownNameError
            There is no such model, or no profile of it is on trial.
        """
        _check_share(share)
        with self._database.writing() as connection:
            known = _on_trial(connection, model)
            if share < known.share:
                raise RequestError(f"share {share:g} is less than the {known.share:g} there is: take it back instead")
            _change(connection, model, share=share)
        return Rollout(model, known.current, known.candidate, share)

    def finish(self, model: str) -> Rollout:
        """Serve all devices with the profile on trial, which is current from now on.

        Raises
        ------
        UnknownNameError
            There is no such model, or no profile of it is on trial.
        """
        with self._database.writing() as connection:
            known = _on_trial(connection, model)
            _change(connection, model, current=known.candidate, candidate=None, share=0.0)
        return Rollout(model, known.candidate or known.current, None, 0.0)

    def take_back(self, model: str) -> Rollout:
        """Serve all devices with the current profile again.

        Raises
        ------
        UnknownNameError
            There is no such model, or no profile of it is on trial.
        """
        with self._database.writing() as connection:
            known = _on_trial(connection, model)
            _change(connection, model, candidate=None, share=0.0)
        return Rollout(model, known.current, None, 0.0)


def _locked(connection: Connection, model: str) -> Rollout:
    """Return a model's rollout, which nobody else changes until the transaction ends."""
    row = connection.execute(select(*_FIELDS).where(ROLLOUTS.c.model == line_of(model)).with_for_update()).one_or_none()
    if row is None:
        known = connection.execute(select(ROLLOUTS.c.model).order_by(ROLLOUTS.c.model)).scalars().all()
        raise UnknownNameError(
            f"there is no model '{line_of(model, 80)}': "
            + (f"those served are {', '.join(known)}" if known else "none has been served yet; start the service first")
        )
    return Rollout(*row)


def _on_trial(connection: Connection, model: str) -> Rollout:
    known = _locked(connection, model)
    if known.candidate is None:
        raise UnknownNameError(f"model {model} has no profile on trial: begin with 'capnn rollout start'")
    return known


def _change(connection: Connection, model: str, **values: Any) -> None:
    connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.model == model).values(**values))


def _listed(connection: Connection, model: str) -> tuple[str, ...]:
    rows = connection.execute(
        select(PROFILES.c.profile).where(PROFILES.c.model == line_of(model)).order_by(PROFILES.c.profile)
    )
    return tuple(rows.scalars())


def _named(candidate: str, listed: Sequence[str], model: str) -> str:
    found = [digest for digest in listed if candidate and digest.startswith(candidate)]
    if len(found) != 1:
        known = ", ".join(f"{digest[:_SHOWN]}…" for digest in listed)
        wrong = "could be several profiles" if found else "is no profile"
        raise RequestError(f"'{line_of(candidate, 64)}' {wrong} of model {model}: the settings list {known}")
    return found[0]


def _check_share(share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise RequestError(f"share {share:g} is none: give one above 0, up to 1 (0.1 is a tenth of the devices)")
