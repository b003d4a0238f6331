"""Options that several commands share: how images become the model's input, and where results are remembered."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cache import LayeredStore, MemoryStore, PlanCache, RedisStore, SqliteStore
from cache.memory import POLICIES
from edge_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from cache import Store
    from edge_runtime.commandline import CommandParser

__all__ = [
    "add_cache_options",
    "add_preprocessing_options",
    "check_folder",
    "open_cache",
    "png_file",
    "positive",
    "preprocessing_from",
]

_CACHE_MEMORY = 64 * 1024 * 1024


def add_cache_options(parser: CommandParser) -> None:
    """Add `--cache`, `--redis` and `--cache-policy`."""
    group = parser.add_argument_group("cache", "results are remembered in memory, and where these say")
    group.add_argument("--cache", type=Path, metavar="FILE", help="a SQLite file, which outlasts this command")
    group.add_argument(
        "--redis", metavar="URL", help="a Redis or Valkey server that machines share, as redis://host:6379/0"
    )
    group.add_argument(
        "--cache-policy",
        choices=POLICIES,
        default="cost",
        help="what leaves a full memory first: what saves the fewest seconds for its bytes, or the least recently used "
        "(default: cost)",
    )


def open_cache(arguments: argparse.Namespace) -> PlanCache:
    """Open the cache that the options name."""
    layers: list[Store] = [MemoryStore(_CACHE_MEMORY, arguments.cache_policy)]
    if arguments.cache is not None:
        layers.append(SqliteStore(arguments.cache))
    if arguments.redis is not None:
        layers.append(RedisStore(arguments.redis))
    return PlanCache(LayeredStore(*layers))


def add_preprocessing_options(parser: CommandParser) -> None:
    """Add `--channels`, `--scale`, `--mean` and `--std`; the size comes from the model."""
    group = parser.add_argument_group(
        "preprocessing", "input = (pixels * scale - mean) / std, pixels 0 to 255; it travels with the model"
    )
    group.add_argument(
        "--channels",
        choices=("rgb", "bgr", "grey"),
        help="order of the channels (default: rgb, or grey for one channel)",
    )
    group.add_argument(
        "--scale", type=float, default=1 / 255, metavar="S", help="factor on the pixels (default: 1/255)"
    )
    group.add_argument(
        "--mean", type=numbers, default=(0.0,), metavar="M[,M,M]", help="one number, or one per channel (default: 0)"
    )
    group.add_argument("--std", type=numbers, default=(1.0,), metavar="S[,S,S]", help="likewise (default: 1)")


def preprocessing_from(arguments: argparse.Namespace, shape: tuple[int, ...]) -> Preprocessing:
    """Return the preprocessing that the options state, for a model input of `shape` (height, width, channels)."""
    channels = arguments.channels or ("grey" if shape[-1] == 1 else "rgb")
    return Preprocessing(shape[0], shape[1], channels, arguments.scale, arguments.mean, arguments.std)


def numbers(text: str) -> tuple[float, ...]:
    """Parse "0.5" or "0.5,0.4,0.3"."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers: write 0.5 or 0.5,0.4,0.3") from None


def png_file(text: str) -> Path:
    """Parse the name of a plot's file."""
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"'{text}' does not end in .png: plots are PNG files")
    return Path(text)


def check_folder(path: Path) -> None:
    """Raise unless there is a folder for the file `path`: known before the work rather than after it."""
    if not path.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent))


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0")
    return int(text)
