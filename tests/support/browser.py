"""A real browser without a window, and what is asked of every page in it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")

# Visible texts whose contrast with what lies behind them is below 4.5, as "text: contrast". Colours are read off a
# canvas, which understands every way to write them; what is disabled need not be read.
_FAINT_TEXTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) return colour;
      if (colour[3] !== 0) throw new Error("half transparent: " + one.outerHTML.slice(0, 80));
    }
    return [255, 255, 255, 255];
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  let seen = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const text = element.matches("input, select") ? element.value : [...element.childNodes]
      .filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data.trim()).join("");
    if (!text || element.disabled || !element.checkVisibility()) continue;
    const [one, other] = [luminance(rgba(getComputedStyle(element).color)), luminance(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    seen += 1;
    if (contrast < 4.5) faint.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  if (seen < 5) throw new Error("hardly any text was seen");
  return faint;
}"""

# Controls that nobody could name who does not see the page.
_NAMELESS = """() => [...document.querySelectorAll("input:not([type=hidden]), select, button, a[href], summary")]
  .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
  .map((one) => one.outerHTML)"""

_HAS_VISIBLE_FOCUS = """() => {
  const style = getComputedStyle(document.activeElement);
  const box = document.activeElement.getBoundingClientRect();
  return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.bottom > 0 && box.width > 0;
}"""


@contextmanager
def headless_chromium():
    """Yield Playwright's browser; skip the test where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: the pages are not looked at in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser, base_url, cookies=(), *, refused=0, **options):
    """Yield a page of a browser of its own; in the end none of its scripts has failed and no file was missing.

    `refused` requests are expected to be answered with an error, which the browser complains of.
    """
    context = browser.new_context(base_url=base_url, **options)
    context.set_default_timeout(20_000)
    context.add_cookies(list(cookies))
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("request", lambda sent: None if sent.url.startswith(base_url) else complaints.append(f"asked {sent.url}"))
    try:
        yield page
        refusals = [one for one in complaints if one.startswith("Failed to load resource")]
        assert len(refusals) == refused, complaints
        assert [one for one in complaints if one not in refusals] == []
    finally:
        context.close()


def faint_texts(page):
    """Return the visible texts that are hard to read, with their contrast."""
    return page.evaluate(_FAINT_TEXTS)


def nameless_controls(page):
    return page.evaluate(_NAMELESS)


def has_visible_focus(page):
    return page.evaluate(_HAS_VISIBLE_FOCUS)


def is_too_wide(page):
    """Whether the page as a whole has to be moved sideways."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
