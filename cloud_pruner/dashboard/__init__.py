"""The service's pages for people: the fleet, its devices and models, and a page to try a cut on.

Rendered on the server; the scripts only keep figures live and spare loading a page again.
"""

from __future__ import annotations

from cloud_pruner.dashboard.routes import router

__all__ = ["router"]
