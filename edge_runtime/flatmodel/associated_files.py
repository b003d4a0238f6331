"""The files that TFLite metadata packs behind a model: labels and the like, as a zip appended to the flatbuffer.

(TensorFlow Lite metadata, "associated files".) The zip counts its offsets from the start of the model file, which
moves when the model in front of it becomes smaller; one whose offsets count from its own start can stand behind any
model, as readers of appended zips allow for something in front.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from typing import Final

from edge_runtime.errors import ModelFileError

__all__ = ["packed_files"]

_BYTES_MAX: Final = 64 << 20
# What `zipfile` raises for something that is no zip, or a damaged or encrypted one.
_UNREADABLE: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, IndexError, EOFError, OSError),
)


def packed_files(content: bytes | memoryview) -> bytes:
    """Return the files packed behind a model as a zip of its own; empty where there are none.

    Raises
    ------
    ModelFileError
        They hold more than 64 MiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            entries = packed.infolist()
            is_small = sum(entry.file_size for entry in entries) <= _BYTES_MAX
            if entries and is_small:
                return _alone(packed, entries)
    except _UNREADABLE:
        return b""
    if not is_small:
        raise ModelFileError("the files packed with the model hold more than 64 MiB: they are no labels")
    return b""


def _alone(packed: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as alone:
        for entry in entries:
            alone.writestr(zipfile.ZipInfo(entry.filename, entry.date_time), packed.read(entry), entry.compress_type)
    return target.getvalue()
