"""How a picture becomes the input of a model: stated once, when a model is profiled, and sent with it to every device.

Two steps, both here so that cloud and device cannot differ: a file becomes pixels (`read_pixels`,
`Preprocessing.decode`), and pixels become the model's numbers (`Preprocessing.apply`). Pixels are uint8, height before
width, channels last, in RGB order or one grey channel.
"""

from __future__ import annotations

import dataclasses
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edge_runtime.errors import ConfigError, InputError, MessageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["PIXELS_MAX", "Preprocessing", "read_pixels"]

PIXELS_MAX = 64 * 1024 * 1024
"""Larger pictures are refused before they are decoded: a few kilobytes can claim to be gigapixels. Phone photos fit."""

# Only what people send: each further parser is a further way in, and Pillow's one for EPS starts another program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
_CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}
_GREY_MODES = ("1", "L", "LA")


def read_pixels(content: bytes, *, mode: str | None = None, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode a picture, turned upright as its EXIF orientation says.

    Parameters
    ----------
    content
        The bytes of a PNG, JPEG, BMP, GIF (first frame), WebP or PPM file.
    mode
        Pillow's "RGB" or "L" (grey); without it, "L" for a picture stored in grey and "RGB" for any other.
        Transparency is dropped.
    size
        (height, width) to resize to, bilinear, without keeping the aspect ratio; without it the picture keeps its size.

    Returns
    -------
    ndarray
        `(height, width, channels)` uint8.

    Raises
    ------
    InputError
        No picture of these formats, a damaged one, one of over `PIXELS_MAX` pixels, or one with more than 8 bits a
        channel.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_header(image)
            if size is not None:
                # A JPEG decodes at 1/2, 1/4 or 1/8 of its size in a fraction of the time; from twice the wanted size on
                # the result is the same but for rounding.
                image.draft(None, (2 * max(size), 2 * max(size)))
            upright = ImageOps.exif_transpose(image)
            picture = upright.convert(mode or ("L" if upright.mode in _GREY_MODES else "RGB"))
            if size is not None:
                picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"not a picture: its {len(content)} bytes are none of {', '.join(_FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"picture claims far more than {PIXELS_MAX} pixels: send a smaller one") from None
    except Exception as error:  # on damaged files Pillow's decoders raise whatever their parser met
        raise InputError(f"picture is damaged ({error or type(error).__name__}): save it again") from error
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > PIXELS_MAX:
        raise InputError(f"picture of {width}x{height} has more than {PIXELS_MAX} pixels: send a smaller one")
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these to 255 instead of scaling them.
        raise InputError(f"picture has more than 8 bits a channel (Pillow's mode {image.mode}): save it with 8 bits")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a model expects of an image: `(pixels * scale - mean) / std` in float32, channels last.

    Attributes
    ----------
    height, width
        Size of the model's input, in pixels.
    channels
        Order of its channels: "rgb", "bgr" or "grey".
    scale
        Factor on the pixels, which are 0 to 255.
    mean, std
        One number, or one per channel in the order of `channels`; applied after `scale`.

    Raises
    ------
    ConfigError
        A field has a value that makes no sense; the message names it.
    """

    height: int
    width: int
    channels: str = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            side: Any = getattr(self, name)
            if not isinstance(side, int) or isinstance(side, bool) or side < 1:
                raise ConfigError(f"preprocessing: {name} is {side!r}: expected a number of pixels, 1 or more")
        if self.channels not in _CHANNELS:
            raise ConfigError(f"preprocessing: channels is {self.channels!r}: expected one of {', '.join(_CHANNELS)}")
        if not _is_number(self.scale) or self.scale == 0:
            raise ConfigError(f"preprocessing: scale is {self.scale!r}: expected a finite number other than 0")
        lengths = sorted({1, self.channel_count})
        for name in ("mean", "std"):
            values: Any = getattr(self, name)
            if not isinstance(values, tuple) or len(values) not in lengths or not all(map(_is_number, values)):
                expected = " or ".join(map(str, lengths))
                raise ConfigError(f"preprocessing: {name} is {values!r}: expected {expected} finite numbers")
        if min(self.std) <= 0:
            raise ConfigError(f"preprocessing: std is {self.std!r}: expected numbers above 0")

    @property
    def channel_count(self) -> int:
        """Number of channels: 3, or 1 for grey."""
        return _CHANNELS[self.channels]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input: (height, width, channels)."""
        return self.height, self.width, self.channel_count

    def decode(self, image_bytes: bytes) -> NDArray[np.uint8]:
        """Decode a picture and resize it (bilinear) to the model's size.

        Returns
        -------
        ndarray
            `(height, width, channels)` uint8, in RGB order or grey: what `apply` takes.

        Raises
        ------
        InputError
            As `read_pixels`.
        """
        mode = "L" if self.channels == "grey" else "RGB"
        return read_pixels(image_bytes, mode=mode, size=(self.height, self.width))

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn pixels into the model's inputs.

        Parameters
        ----------
        images
            `(n, height, width, channels)` uint8, in RGB order or grey.

        Returns
        -------
        ndarray
            The same shape, float32, channels in the model's order.

        Raises
        ------
        InputError
            The images have another size, number of channels or dtype.
        """
        if images.ndim != 4 or images.shape[1:] != self.shape:
            raise InputError(
                f"images have shape {images.shape[1:]}, the model takes {self.shape} (height, width, channels): "
                f"resize them or correct the preprocessing"
            )
        if images.dtype != np.uint8:
            raise InputError(f"images are {images.dtype}: expected uint8 pixels from 0 to 255")
        if self.channels == "bgr":
            images = images[..., ::-1]
        inputs = images.astype(np.float32, order="C")
        inputs *= np.float32(self.scale)
        inputs -= np.array(self.mean, dtype=np.float32)
        inputs /= np.array(self.std, dtype=np.float32)
        return inputs

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain numbers, strings and lists, fit for msgpack and JSON."""
        return {
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "scale": float(self.scale),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Make one from what `to_dict` returned; fields that it does not know are ignored.

        Raises
        ------
        MessageError
            A field is missing or has a wrong value; the message names it.
        """
        values: dict[str, Any] = {}
        for name in (field.name for field in dataclasses.fields(cls)):
            if name not in fields:
                raise MessageError(f"preprocessing: field '{name}' is missing")
            value = fields[name]
            values[name] = tuple(value) if isinstance(value, list) else value
        try:
            return cls(**values)
        except ConfigError as error:
            raise MessageError(str(error)) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
