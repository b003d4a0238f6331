"""What of the service outlasts a process: devices, operators, rollouts, jobs, the history of cuts, and files.

Rows lie in a database (SQLite, or PostgreSQL by configuration), files wherever fsspec reaches. Nothing here knows of
HTTP.
"""

from __future__ import annotations

from cloud_pruner.state.database import Database
from cloud_pruner.state.devices import Device, Devices
from cloud_pruner.state.files import FileStore
from cloud_pruner.state.fleet import FleetSummary
from cloud_pruner.state.history import CutRecord, History
from cloud_pruner.state.jobs import Job, Jobs
from cloud_pruner.state.operators import Operators
from cloud_pruner.state.rollouts import Rollout, Rollouts, profile_of

__all__ = [
    "CutRecord",
    "Database",
    "Device",
    "Devices",
    "FileStore",
    "FleetSummary",
    "History",
    "Job",
    "Jobs",
    "Operators",
    "Rollout",
    "Rollouts",
    "profile_of",
]
