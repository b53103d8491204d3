"""Pages in HTML that need nothing but themselves: one file, images within it, opened offline.

None has scripts, except that of a study, for its plots, and that of a report, which runs one of ours and no other: it
names the digest of what may run.
"""

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fills in a template; all text is escaped, whoever wrote it.

    Args:
        template: its name in the folder ``templates``; most extend ``page.html.j2``.
        context: what it is filled with.

    Raises:
        jinja2.UndefinedError: if the template asks for something that is not there.
    """
    return _environment().get_template(template).render(context)


class Script(NamedTuple):
    """A script of ours within a page.

    Attributes:
        text: its code.
        digest: by which a policy lets it run, and no other.
    """

    text: Markup
    digest: str


def script(name: str) -> Script:
    """Reads a script of the folder ``templates``."""
    text = (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
    return Script(Markup(text), f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}")


def data_uri(content: bytes, kind: Literal["png", "gif", "webp"] = "png") -> str:
    """An image as an address that holds the image itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png(image: np.ndarray) -> bytes:
    """Encodes a picture.

    Args:
        image: uint8 (H, W, 3) or (H, W).
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def webp(image: np.ndarray) -> bytes:
    """Encodes a picture of a microscope in a fifth of the bytes, with losses that nobody sees.

    Args:
        image: uint8 (H, W, 3).
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


def jpeg(image: np.ndarray) -> bytes:
    """Encodes a picture for notebooks, which do not show WebP; uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def file_name(text: str) -> str:
    """Makes a name of a single file, or folder, of any text: never a path, never hidden, never empty."""
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII).lstrip(".")[:100] or "_"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lightning_cells.visualization"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
