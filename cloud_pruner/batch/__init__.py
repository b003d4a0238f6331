"""Cuts for a whole fleet at once: requests grouped by what their cut depends on, each group searched once.

>>> from cloud_pruner.batch import BatchSettings, LocalCrew, run_batch
>>> crew = lambda: LocalCrew(profile.folder, 4)
>>> run_batch(profile, Path("requests.jsonl"), Path("out"), crew, BatchSettings("local"))  # doctest: +SKIP
"""

from __future__ import annotations

from cloud_pruner.batch.local_crew import LocalCrew
from cloud_pruner.batch.ray_crew import RayCrew
from cloud_pruner.batch.requests_file import BatchDefaults
from cloud_pruner.batch.run import BatchSettings, run_batch
from cloud_pruner.batch.summary import BatchSummary

__all__ = ["BatchDefaults", "BatchSettings", "BatchSummary", "LocalCrew", "RayCrew", "run_batch"]
