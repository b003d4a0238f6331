"""Measurements: each module prints one JSON object with ratios of figures measured in the same run."""
