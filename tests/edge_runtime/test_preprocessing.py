"""Pictures become pixels, pixels become a model's numbers."""

from __future__ import annotations

import io
import json
import struct
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_runtime.errors import ConfigError, InputError, MessageError
from edge_runtime.preprocessing import PIXELS_MAX, Preprocessing, read_pixels

IMAGENET = Preprocessing(4, 6, "rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def gradient(height: int, width: int) -> Image.Image:
    """A smooth picture: red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * x // width, 255 * y // height, np.full_like(x, 60)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def test_apply_scales_then_subtracts_then_divides():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)

    inputs = IMAGENET.apply(pixels)

    assert inputs.dtype == np.float32
    expected = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(inputs, expected, atol=1e-6)


def test_the_default_maps_pixels_to_zero_to_one():
    inputs = Preprocessing(1, 2, "grey").apply(np.array([[[[0], [255]]]], dtype=np.uint8))
    np.testing.assert_allclose(inputs.ravel(), [0, 1])


def test_bgr_reverses_the_channels_before_its_own_mean():
    red = np.full((1, 1, 1, 3), [200, 0, 10], dtype=np.uint8)
    inputs = Preprocessing(1, 1, "bgr", scale=1.0, mean=(1.0, 2.0, 3.0)).apply(red)
    np.testing.assert_array_equal(inputs.ravel(), [9, -2, 197])


def test_apply_leaves_the_pixels_alone():
    pixels = np.full((1, 4, 6, 3), 7, dtype=np.uint8)
    IMAGENET.apply(pixels)
    assert (pixels == 7).all()


def test_apply_names_both_sizes():
    with pytest.raises(InputError, match=r"\(5, 6, 3\).*\(4, 6, 3\)"):
        IMAGENET.apply(np.zeros((2, 5, 6, 3), dtype=np.uint8))


def test_apply_refuses_floats_and_a_single_image():
    with pytest.raises(InputError, match=r"float32.*uint8"):
        IMAGENET.apply(np.zeros((1, 4, 6, 3), dtype=np.float32))
    with pytest.raises(InputError):
        IMAGENET.apply(np.zeros((4, 6, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "PPM"])
def test_decode_gives_the_very_pixels_of_a_picture_of_the_right_size(kind: str):
    picture = gradient(4, 6)
    pixels = IMAGENET.decode(encoded(picture, kind, **({"lossless": True} if kind == "WEBP" else {})))
    np.testing.assert_array_equal(pixels, np.asarray(picture))


def test_decode_resizes_a_jpeg_photo_of_another_shape():
    target = Preprocessing(16, 16)
    pixels = target.decode(encoded(gradient(600, 900), "JPEG", quality=95))
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), np.asarray(gradient(16, 16)).astype(int), atol=12)


def test_decode_makes_one_grey_channel_of_colours():
    pixels = Preprocessing(1, 1, "grey").decode(encoded(Image.new("RGB", (3, 3), (255, 0, 0))))
    assert pixels.shape == (1, 1, 1)
    assert pixels[0, 0, 0] == 76  # ITU-R 601: 0.299 of red


def test_decode_makes_three_channels_of_grey_and_drops_transparency():
    assert Preprocessing(2, 2).decode(encoded(Image.new("L", (2, 2), 9))).tolist() == [[[9] * 3] * 2] * 2
    assert Preprocessing(1, 1).decode(encoded(Image.new("RGBA", (1, 1), (1, 2, 3, 0)))).tolist() == [[[1, 2, 3]]]


def test_a_photo_taken_sideways_is_turned_upright():
    picture = Image.new("RGB", (2, 1))
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned, show it rotated by 90 degrees clockwise
    pixels = Preprocessing(2, 1).decode(encoded(picture, exif=exif))
    assert pixels[:, 0, 0].tolist() == [255, 0]


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [int(PIXELS_MAX**0.5) + 1, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int):
    with pytest.raises(InputError, match=f"more than {PIXELS_MAX} pixels"):
        IMAGENET.decode(png_claiming(side, side))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a picture"),
        (encoded(gradient(400, 400))[:500], "damaged"),
        (encoded(gradient(40, 40), "JPEG")[:400], "damaged"),
        (encoded(Image.new("I;16", (4, 4))), "more than 8 bits"),
    ],
    ids=["empty", "eps", "half a png", "half a jpeg", "16 bit"],
)
def test_what_is_no_whole_8_bit_picture_is_refused_on_one_line(content: bytes, reason: str):
    with pytest.raises(InputError, match=reason) as caught:
        IMAGENET.decode(content)
    assert "\n" not in str(caught.value)


def test_read_pixels_keeps_size_and_kind():
    assert read_pixels(encoded(Image.new("L", (5, 3)))).shape == (3, 5, 1)
    assert read_pixels(encoded(Image.new("P", (5, 3)))).shape == (3, 5, 3)


numbers = st.floats(-1e6, 1e6).map(float)


@given(
    st.integers(1, 4096),
    st.integers(1, 4096),
    st.sampled_from(["rgb", "bgr"]),
    st.floats(1e-6, 1e6),
    st.tuples(numbers) | st.tuples(numbers, numbers, numbers),
    st.tuples(st.floats(1e-6, 1e6)),
)
def test_it_travels_as_msgpack_and_json(height, width, channels, scale, mean, std):
    stated = Preprocessing(height, width, channels, scale, mean, std)
    assert Preprocessing.from_dict(msgpack.unpackb(msgpack.packb(stated.to_dict()))) == stated
    assert Preprocessing.from_dict(json.loads(json.dumps(stated.to_dict()))) == stated


def test_a_field_of_a_newer_version_is_ignored():
    assert Preprocessing.from_dict({**IMAGENET.to_dict(), "crop": "centre"}) == IMAGENET


@pytest.mark.parametrize("name", ["height", "width", "channels", "scale", "mean", "std"])
def test_from_dict_names_the_missing_field(name: str):
    fields = IMAGENET.to_dict()
    del fields[name]
    with pytest.raises(MessageError, match=f"'{name}' is missing"):
        Preprocessing.from_dict(fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("height", 0),
        ("height", True),
        ("width", 32.0),
        ("channels", "cmyk"),
        ("channels", ["rgb"]),
        ("scale", 0),
        ("scale", float("nan")),
        ("scale", "1"),
        ("mean", 0.5),
        ("mean", [0.5, 0.5]),
        ("mean", ["a", "b", "c"]),
        ("std", []),
        ("std", [1.0, 0.0, 1.0]),
    ],
)
def test_from_dict_names_the_wrong_field(name: str, value: object):
    with pytest.raises(MessageError, match=f"preprocessing: {name} is"):
        Preprocessing.from_dict({**IMAGENET.to_dict(), name: value})


def test_the_constructor_refuses_what_makes_no_sense():
    with pytest.raises(ConfigError, match="std is"):
        Preprocessing(8, 8, std=(-1.0,))
    with pytest.raises(ConfigError, match=r"mean is.*expected 1 finite"):
        Preprocessing(8, 8, "grey", mean=(0.1, 0.2, 0.3))
