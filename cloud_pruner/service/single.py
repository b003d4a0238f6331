"""The short way to a service of one model in this process, for tests and demonstrations."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_pruner.service.app import make_app
from cloud_pruner.service.assembly import assembled
from cloud_pruner.service.metrics import ServiceMetrics
from cloud_pruner.service.settings import (
    KeysSettings,
    LimitsSettings,
    ServerSettings,
    ServiceSettings,
    StateSettings,
)

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cloud_pruner.personalize import Personalizer
    from cloud_pruner.signer import Signer

__all__ = ["make_service"]


def make_service(
    personalizer: Personalizer,
    signer: Signer,
    guarantee: str = "certified",
    *,
    folder: Path | None = None,
    tokens: bool = False,
    limits: LimitsSettings | None = None,
) -> FastAPI:
    """Return the ASGI application that answers with `personalizer`; its parts are `app.state.parts`.

    Parameters
    ----------
    personalizer, signer
        Of the one model; they stay the caller's.
    guarantee
        For requests that name none.
    folder
        Where the state lies; without one it lies in a temporary folder that goes with the application.
    tokens
        Whether callers must show a token.
    limits
        Others than the defaults.

    Raises
    ------
    StateError
        The folder cannot be used.
    ModelFileError
        The interpreter refuses the base model, or fails.
    """
    life = ExitStack()
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="capnn-service-"))
        life.callback(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    settings = ServiceSettings(
        state=StateSettings.in_folder(folder),
        keys=KeysSettings(signer.keys.folder),
        models={"model": (personalizer.profile.folder,)},
        server=ServerSettings(tokens=tokens, guarantee=guarantee),
        limits=limits or LimitsSettings(),
    )
    try:
        parts = assembled(settings, signer, {"model": [personalizer]}, ServiceMetrics(), life)
    except BaseException:
        life.close()
        raise
    app = make_app(parts)
    app.state.parts = parts
    weakref.finalize(app, life.close)
    return app
