"""CAPTOR, a method to compare with: filters go that prefer classes the user does not meet.

After Qin, Yu, Liu and Chen, "CAPTOR: a class adaptive filter pruning framework for convolutional neural networks in
mobile applications", ASP-DAC 2019, of which we know the abstract alone. What it says: the class activation preference
of convolutional filters is told by *feature interest visualisation* and *gradient analysis*; filters are *clustered*;
those of unneeded classes are *adaptively* pruned; nothing but filters goes. How each of these is done is ours, and said
where it is done: measures in `measurement`, preferences and clusters in `preferences`, the schedule in `variant`.

preferences = measure_preferences(Path("model.keras"), profile.base, inputs, labels)
evaluator.measure(captor_method(preferences), class_set)
"""

from __future__ import annotations

from cloud_pruner.captor.measurement import measure_preferences
from cloud_pruner.captor.preferences import FilterPreference, Preferences, filter_preference
from cloud_pruner.captor.variant import Captor, captor_method

__all__ = [
    "Captor",
    "FilterPreference",
    "Preferences",
    "captor_method",
    "filter_preference",
    "measure_preferences",
]
