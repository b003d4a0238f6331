"""How all pages are made from their templates: escaped, and with nothing that is undefined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["page_templates"]


def page_templates(folder: Path) -> jinja2.Environment:
    """Return the templates in `folder`."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
