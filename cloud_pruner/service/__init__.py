"""The cloud service: personalised models over HTTP, for a fleet.

`make_service` is loaded when it is first used: commands that only look into the service's state start faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloud_pruner.service.single import make_service

__all__ = ["make_service"]


def __getattr__(name: str) -> Any:
    if name == "make_service":
        from cloud_pruner.service.single import make_service  # noqa: PLC0415 - see above

        return make_service
    raise AttributeError(f"module 'cloud_pruner.service' has no attribute '{name}'")
