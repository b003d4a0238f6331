"""What the routes of the service share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud_pruner.released_files import ReleasedFiles
    from cloud_pruner.service.access import Access
    from cloud_pruner.service.catalogue import Catalogue
    from cloud_pruner.service.metrics import ServiceMetrics
    from cloud_pruner.service.rates import DeviceRates
    from cloud_pruner.service.searches import SearchQueue
    from cloud_pruner.service.settings import ServiceSettings
    from cloud_pruner.signer import Signer
    from cloud_pruner.state.database import Database
    from cloud_pruner.state.devices import Devices
    from cloud_pruner.state.history import History
    from cloud_pruner.state.jobs import Jobs
    from cloud_pruner.state.operators import Operators
    from cloud_pruner.state.rollouts import Rollouts

__all__ = ["Phase", "ServiceParts"]


@dataclass(slots=True)
class Phase:
    """Where in its life a worker is.

    Attributes
    ----------
    draining
        It is to end, and not ready for more.
    job_submitted
        Set when a job was handed in here: no need to wait for the next look.
    """

    draining: bool = False
    job_submitted: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """One worker's parts, each for any number of threads."""

    settings: ServiceSettings
    signer: Signer
    catalogue: Catalogue
    database: Database
    devices: Devices
    operators: Operators
    history: History
    jobs: Jobs
    rollouts: Rollouts
    files: ReleasedFiles
    metrics: ServiceMetrics
    access: Access
    searches: SearchQueue
    rates: DeviceRates
    phase: Phase = field(default_factory=Phase)
