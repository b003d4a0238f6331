"""The cloud service: personalised models over HTTP, for a fleet."""

from __future__ import annotations

from cloud_pruner.service.single import make_service

__all__ = ["make_service"]
