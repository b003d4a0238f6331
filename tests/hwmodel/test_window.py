"""How many different words of an image windows read, counted one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwmodel import Window


@st.composite
def windows(draw):
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    stride, dilation = draw(st.tuples(*[st.integers(1, 3)] * 2)), draw(st.tuples(*[st.integers(1, 3)] * 2))
    image = draw(st.tuples(*[st.integers(2, 9)] * 2))
    spread = [(taps - 1) * apart + 1 for taps, apart in zip(kernel, dilation, strict=True)]
    if draw(st.booleans()):
        output = tuple(-(-side // step) for side, step in zip(image, stride, strict=True))
    else:
        output = tuple((side - s) // step + 1 for side, s, step in zip(image, spread, stride, strict=True))
    assume(min(output) >= 1)
    return Window.padded(image, output, kernel, stride, dilation, draw(st.integers(1, 4)))


def words_read(window, elements, first=0, count=None):
    """Return the words of the image (row, column, channel) that some elements of the filters read, for some windows."""
    seen = set()
    pixels = list(np.ndindex(*window.output))[first:][:count]
    for element in elements:
        *tap, channel = np.unravel_index(element, (*window.kernel, window.channels))
        for pixel in pixels:
            at = tuple(
                int(p * step + t * apart - before)
                for p, step, t, apart, before in zip(
                    pixel, window.stride, tap, window.dilation, window.padding, strict=True
                )
            )
            if all(0 <= position < side for position, side in zip(at, window.image, strict=True)):
                seen.add((*at, int(channel)))
    return seen


def elements_of(window):
    return range(int(np.prod(window.kernel)) * window.channels)


@settings(max_examples=150, deadline=None)
@given(windows())
def test_all_windows_together(window):
    assert window.words == len(words_read(window, elements_of(window)))


@settings(max_examples=150, deadline=None)
@given(windows(), st.integers(1, 20))
def test_folds_of_the_filters_each_by_itself(window, rows):
    elements = elements_of(window)
    folds = [elements[start : start + rows] for start in range(0, len(elements), rows)]
    assert window.fold_words(rows) == [len(words_read(window, fold)) for fold in folds]


@settings(max_examples=100, deadline=None)
@given(windows(), st.integers(1, 20))
def test_folds_that_fetch_for_each_kernel_row_by_itself(window, rows):
    elements, line = elements_of(window), window.kernel[1] * window.channels
    folds = [elements[start : start + rows] for start in range(0, len(elements), rows)]
    parts = [[e for e in fold if e // line == row] for fold in folds for row in range(window.kernel[0])]
    assert sum(window.fold_words(rows, rows_apart=True)) == sum(len(words_read(window, part)) for part in parts)


@settings(max_examples=150, deadline=None)
@given(windows(), st.integers(1, 30), st.integers(0, 30))
def test_a_tile_reads_no_more_than_is_said_wherever_its_rows_begin(window, pixels, row):
    first = row % window.output[0] * window.output[1]
    read = words_read(window, elements_of(window), first, pixels)
    assert len(read) <= window.tile_words(pixels)


def test_a_tile_of_all_pixels_reads_the_image():
    window = Window.padded((6, 6), (6, 6), (3, 3), (1, 1), (1, 1), 2)
    assert window.tile_words(36) == window.words == 72
    assert window.tile_words(2 * 36) == 2 * 72  # two images
    assert window.tile_words(12) == 4 * 6 * 2  # two rows of outputs read four of the image
