"""Puts a worker's parts together from its settings, and takes them apart again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from cache import LayeredStore, MemoryStore, PlanCache, RedisStore, SqliteStore
from cloud_pruner.manifests import base_manifest
from cloud_pruner.personalize import Personalizer
from cloud_pruner.profile import Profile
from cloud_pruner.released_files import ReleasedFiles
from cloud_pruner.service.access import Access
from cloud_pruner.service.catalogue import Catalogue, ServedProfile
from cloud_pruner.service.metrics import ServiceMetrics, counts_folder
from cloud_pruner.service.parts import ServiceParts
from cloud_pruner.service.rates import DeviceRates
from cloud_pruner.service.searches import SearchQueue
from cloud_pruner.signer import Signer
from cloud_pruner.state.database import Database
from cloud_pruner.state.devices import Devices
from cloud_pruner.state.files import FileStore
from cloud_pruner.state.history import History
from cloud_pruner.state.jobs import Jobs
from cloud_pruner.state.operators import Operators
from cloud_pruner.state.rollouts import Rollouts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from cache import Store
    from cache.memory import Policy
    from cloud_pruner.service.settings import CacheSettings, ServiceSettings

__all__ = ["assembled", "opened"]

_CACHE_MEMORY: Final = 64 << 20


def _cache(settings: CacheSettings) -> PlanCache:
    """Open the cache; go on without a file that cannot be used, until it can be."""
    layers: list[Store] = [MemoryStore(_CACHE_MEMORY, cast("Policy", settings.policy))]
    if settings.sqlite is not None:
        layers.append(SqliteStore(settings.sqlite, patient=True))
    if settings.redis is not None:
        layers.append(RedisStore(settings.redis))
    return PlanCache(LayeredStore(*layers))


def opened(settings: ServiceSettings, life: ExitStack) -> ServiceParts:
    """Open all that the settings name; `life` closes it.

    Raises
    ------
    PrunerError, EdgeError, OSError
        Something cannot be opened; the message says what.
    """
    signer = life.enter_context(Signer(settings.keys.folder))
    cache = life.enter_context(_cache(settings.cache))
    served = {
        model: [Personalizer(Profile.open(folder), cache) for folder in folders]
        for model, folders in settings.models.items()
    }
    return assembled(settings, signer, served, ServiceMetrics(counts_folder()), life)


def assembled(
    settings: ServiceSettings,
    signer: Signer,
    personalizers: Mapping[str, Sequence[Personalizer]],
    metrics: ServiceMetrics,
    life: ExitStack,
) -> ServiceParts:
    """Return the parts over what is open already; `life` closes the state.

    Raises
    ------
    StateError, StateVersionError, MissingExtraError
        The state cannot be used.
    ModelFileError
        The interpreter refuses a base model, or fails.
    """
    database = life.enter_context(Database.open(settings.state.database))
    devices, operators, rollouts = Devices(database), Operators(database), Rollouts(database)
    life.callback(devices.close)
    served = {
        model: [ServedProfile(model, one, base_manifest(one.profile)) for one in versions]
        for model, versions in personalizers.items()
    }
    catalogue = Catalogue(served, rollouts)
    searches = SearchQueue(settings.limits.queue, metrics.queue)
    life.callback(searches.close)
    return ServiceParts(
        settings=settings,
        signer=signer,
        catalogue=catalogue,
        database=database,
        devices=devices,
        operators=operators,
        history=History(database),
        jobs=Jobs(database),
        rollouts=rollouts,
        files=ReleasedFiles([one.profile.base for one in catalogue.all()], FileStore(settings.state.files), database),
        metrics=metrics,
        access=Access(devices, operators, required=settings.server.tokens_required),
        searches=searches,
        rates=DeviceRates(settings.limits.device_rate, settings.cache.redis),
    )
