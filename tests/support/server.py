"""A real HTTP server on loopback, in a thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import uvicorn

from edge_runtime.http_server import listen, url_of


@contextmanager
def running(app):
    """Serve an ASGI application; yields its address."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
