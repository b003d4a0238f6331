"""What can go wrong in the demo.

PrunerError
└── DemoError   a process that does not start or answer, a folder that is not the demo's, a promise that does not hold
"""

from __future__ import annotations

from cloud_pruner.errors import PrunerError

__all__ = ["DemoError"]


class DemoError(PrunerError):
    """The demo cannot go on, or did not show what it promises."""
