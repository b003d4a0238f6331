"""Tries a model in a process of its own before it may come into the one that serves.

LiteRT checks little of a file: what is wrong with one may abort the whole process, or end it by a segmentation fault.
Here that costs a child process. It runs the model's self-test, at low priority, with bounded time and memory.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_runtime.errors import EdgeError, ModelFileError
from edge_runtime.messages import pack, unpack

if TYPE_CHECKING:
    from typing import IO

    from edge_runtime.wire import Manifest

__all__ = ["TRIAL_S", "main", "try_model"]

TRIAL_S: Final = 120
"""How long a trial may take, in s: even a large model answers a few images in a small part of it."""

# The child finds what this process has found, wherever that came from.
_CHILD: Final = "import sys; sys.path[:] = sys.argv[1:]; from edge_runtime.trial import main; main()"
_SAID_MAX: Final = 4096
_PASSED: Final = b"passed"
_FAILED: Final = b"failed: "

# Serving goes first, also on one core.
_NICE: Final = 10
# The file, its weights as the interpreter packs them, twice that for what it computes, and what an empty one takes.
_MEMORY_FACTOR: Final = 4
_MEMORY_BYTES: Final = 1 << 30


def try_model(content: bytes | memoryview, manifest: Manifest, *, threads: int) -> None:
    """Load the file in a child process, and compare its answers with the manifest's self-test.

    Raises
    ------
    ModelFileError
        The interpreter refuses the file, dies of it, or takes too long; or the model answers something else than its
        manifest says.
    OSError
        No process can be started.
    """
    name = f"model {manifest.digest[:12]}"
    header = pack({"manifest": manifest.to_fields(), "threads": threads})
    command = [sys.executable, "-c", _CHILD, *sys.path]
    with subprocess.Popen(  # noqa: S603 - this interpreter, with our own code
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        too_long = threading.Event()

        def end() -> None:
            too_long.set()
            child.kill()

        clock = threading.Timer(TRIAL_S, end)
        clock.daemon = True
        clock.start()
        try:
            _send(child.stdin, header, content)
            said = child.stdout.read(_SAID_MAX)
            status = child.wait()
        finally:
            clock.cancel()
            child.kill()
    if too_long.is_set():
        raise ModelFileError(f"{name}: its trial took longer than {TRIAL_S} s: it is too slow to be served here")
    if status == 0 and said == _PASSED:
        return
    if said.startswith(_FAILED):
        raise ModelFileError(said.removeprefix(_FAILED).decode("utf-8", "replace"))
    raise ModelFileError(f"{name}: {_death(status)} in its trial: it cannot be served here")


def _send(pipe: IO[bytes], header: bytes, content: bytes | memoryview) -> None:
    try:
        with pipe:
            pipe.write(len(header).to_bytes(8, "big"))
            pipe.write(header)
            pipe.write(content)
    except BrokenPipeError:
        pass  # it died before it had read all: its status tells


def _death(status: int) -> str:
    if status >= 0:
        return f"the process ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if -status in {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}:
        return f"the interpreter {'aborted' if -status == signal.SIGABRT else 'crashed'} ({name})"
    return f"the process was ended from outside ({name}; is memory short?)"


def main() -> None:
    """Be the child: read a model from standard input, try it, and say on standard output how that went."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (TRIAL_S, TRIAL_S))  # should the parent be gone
    os.nice(_NICE)

    source = sys.stdin.buffer
    header = unpack(source.read(int.from_bytes(source.read(8), "big")))
    content = source.read()
    reason = _tried(content, header)
    sys.stdout.buffer.write(_PASSED if reason is None else _FAILED + reason.encode()[: _SAID_MAX - len(_FAILED)])
    sys.stdout.buffer.flush()
    os._exit(0)  # an interpreter that a bad model has confused need not be taken down cleanly


def _tried(content: bytes, header: dict[str, object]) -> str | None:
    from edge_runtime.self_test import run_self_test  # noqa: PLC0415 - the parent needs none of these
    from edge_runtime.serving import ServingModel  # noqa: PLC0415 - likewise
    from edge_runtime.slots import StoredModel  # noqa: PLC0415 - likewise
    from edge_runtime.wire import Manifest  # noqa: PLC0415 - likewise

    try:
        manifest = Manifest.from_fields(header["manifest"])  # type: ignore[arg-type] # from our own parent
        _bound_memory(len(content))
        model = ServingModel(StoredModel(manifest, content), threads=int(header["threads"]))  # type: ignore[call-overload] # likewise
        difference = None if manifest.self_test is None else run_self_test(model, manifest.self_test)
    except EdgeError as error:
        return str(error)
    except MemoryError:
        return f"model {manifest.digest[:12]}: takes far more memory than a file of {len(content)} bytes should"
    return None if difference is None else f"model {manifest.digest[:12]}: {difference}: it does not compute here"


def _bound_memory(file_bytes: int) -> None:
    """Limit the address space to what is in use and what a model file of this size may need."""
    from edge_runtime.interpreter import interpreter_class  # noqa: PLC0415 - as in `_tried`

    interpreter_class()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _MEMORY_FACTOR * file_bytes + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
