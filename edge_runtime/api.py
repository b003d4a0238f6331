"""The daemon's HTTP face, on a loopback port or a Unix socket.

===========================  ==========================================================================================
`POST /v1/classify`          an image (PNG, JPEG, BMP, GIF, WebP or PPM, whatever the content type), or with
                             `Content-Type: application/octet-stream` raw pixels: height x width x channels bytes,
                             row by row, in RGB order or grey, of the model's exact size. Answers a `Prediction` in JSON
`GET /v1/status`             `EdgeDaemon.status` in JSON
`GET /metrics`               the same and more for Prometheus, in its text format
`GET /livez`, `GET /readyz`  200 while the background thread runs, and once there is a model to serve; else 503
===========================  ==========================================================================================

Every error is `{"error": "one line"}`: 400 for a body that is no such image, 413 for one that is too long, 503 without
a model, 500 where the model fails.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_runtime.errors import EdgeError, InputError
from edge_runtime.http_server import bounded_body

if TYPE_CHECKING:
    from starlette.requests import Request

    from edge_runtime.classifier import EdgeClassifier, Prediction
    from edge_runtime.daemon import EdgeDaemon

__all__ = ["RAW_PIXELS", "make_app"]

RAW_PIXELS = "application/octet-stream"

# One decodes a picture while the other runs the model, which takes one image at a time.
_WORKERS = 2


def make_app(daemon: EdgeDaemon) -> Starlette:
    """Return the ASGI application that serves `daemon`, which has been entered."""
    workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="classify")

    async def classify(request: Request) -> JSONResponse:
        body = await bounded_body(
            request, daemon.config.api.body_bytes_max, "send a smaller picture, or raise body_bytes_max"
        )
        if not daemon.ready:
            raise HTTPException(503, "there is no model yet: the base model is still to be fetched, see /v1/status")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()

        def run(classifier: EdgeClassifier) -> Prediction:
            return classify_raw(classifier, body) if kind == RAW_PIXELS else classifier.classify(body)

        prediction = await asyncio.get_running_loop().run_in_executor(workers, daemon.classify, run)
        return JSONResponse(prediction.to_fields())

    async def status(_request: Request) -> JSONResponse:
        return JSONResponse(daemon.status())

    async def metrics(_request: Request) -> Response:
        from edge_runtime.metrics import CONTENT_TYPE, metrics_text  # noqa: PLC0415 - for those who ask for it

        return Response(metrics_text(daemon.status(), daemon.records.latencies()), media_type=CONTENT_TYPE)

    async def livez(_request: Request) -> JSONResponse:
        return JSONResponse({"alive": daemon.alive}, 200 if daemon.alive else 503)

    async def readyz(_request: Request) -> JSONResponse:
        return JSONResponse({"ready": daemon.ready}, 200 if daemon.ready else 503)

    return Starlette(
        routes=[
            Route("/v1/classify", classify, methods=["POST"]),
            Route("/v1/status", status),
            Route("/metrics", metrics),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        exception_handlers={HTTPException: _http_error, InputError: _bad_input, EdgeError: _failed},
    )


def classify_raw(classifier: EdgeClassifier, body: bytes) -> Prediction:
    """Classify raw pixels.

    Raises
    ------
    InputError
        There are more or fewer bytes than the model takes.
    ModelFileError
        There is no model yet, or it fails.
    """
    model = classifier.models.active
    if model is not None:
        shape = model.manifest.preprocessing.shape
        if len(body) != math.prod(shape):
            size = " x ".join(map(str, shape))
            raise InputError(
                f"raw pixels are {len(body)} bytes, the model takes {size} (height, width, channels) = "
                f"{math.prod(shape)}: "
                f"send them so, or send a picture with its content type, such as image/png"
            )
        return classifier.classify_pixels(np.frombuffer(body, dtype=np.uint8).reshape(shape))
    return classifier.classify(body)


async def _http_error(_request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _bad_input(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 400)


async def _failed(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 500)
