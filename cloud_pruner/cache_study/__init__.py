"""Hit rates of the cache on made-up requests: by tier, by eviction policy, by size, and as popularity changes.

settings = StudySettings(COSTS["L"])
rows = run_study(100, [of_profile(profile)], settings)
"""

from __future__ import annotations

from cloud_pruner.cache_study.clusterings import Clustering, cluster_numbers, made_up_rates, of_profile, with_numbers
from cloud_pruner.cache_study.simulation import CostModel
from cloud_pruner.cache_study.study import COSTS, Row, StudySettings, run_study
from cloud_pruner.cache_study.summary import Source, Summary, summarise

__all__ = [
    "COSTS",
    "Clustering",
    "CostModel",
    "Row",
    "Source",
    "StudySettings",
    "Summary",
    "cluster_numbers",
    "made_up_rates",
    "of_profile",
    "run_study",
    "summarise",
    "with_numbers",
]
