"""Pictures, figures and scripts as text inside a page, as small as they come."""

from __future__ import annotations

import base64
import functools
import gzip
import io
from typing import Any

from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from landscape.report.parts import Picture

__all__ = ["SharedArrays", "data_address", "packed"]

_QUALITY = 75  # of 100, of pictures with smooth shades
_COLORS = 96  # of pictures without: what tells apart lines, a color map and the edges of letters
_DOTS_PER_INCH = 150
_LONG = 1000  # letters of an array that is worth an element of its own
_PNG = b"\x89PNG\r\n\x1a\n"


def packed(text: str) -> str:
    """Compressed text in letters that cannot end a script element; the same text gives the same letters."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()


def data_address(picture: Picture, widest: int) -> str:
    """The picture itself as an address: SVG as it is, everything else as WebP, a third of the size of PNG.

    An SVG in an ``img`` element runs no script and loads nothing.

    Args:
        picture: what to pack.
        widest: pixels, to which wider pictures are shrunk.

    Raises:
        ValueError: neither PNG nor SVG, or broken.
    """
    if isinstance(picture.image, Figure):
        buffer = io.BytesIO()
        picture.image.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
        return _webp(buffer.getvalue(), picture.alt, widest)
    start = picture.image[:512].lstrip()
    if start.startswith((b"<svg", b"<?xml")):
        return f"data:image/svg+xml;base64,{base64.b64encode(picture.image).decode()}"
    if start.startswith(_PNG):
        return _webp(picture.image, picture.alt, widest)
    raise ValueError(f"picture {picture.alt[:60]!r}: expected bytes of a PNG or SVG file, got {bytes(start[:8])!r}")


class SharedArrays:
    """The arrays of a page's figures, each once: figures of the same surfaces have nearly all of them in common."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._new: list[tuple[str, str]] = []

    def shared(self, value: Any) -> Any:
        """A figure's JSON with long arrays replaced by ``@`` and an identifier."""
        if isinstance(value, dict):
            text = value.get("bdata")
            if isinstance(text, str) and len(text) >= _LONG:
                return value | {"bdata": f"@{self._id(text)}"}
            return {name: self.shared(inner) for name, inner in value.items()}
        return [self.shared(inner) for inner in value] if isinstance(value, list) else value

    def new(self) -> list[tuple[str, str]]:
        """Identifiers and packed arrays since the last call."""
        found, self._new = self._new, []
        return found

    def _id(self, text: str) -> str:
        if text not in self._ids:
            self._ids[text] = f"packed-array-{len(self._ids) + 1}"
            self._new.append((self._ids[text], packed(text)))
        return self._ids[text]


@functools.lru_cache(maxsize=256)  # a page that was too large is written again, mostly of the same pictures
def _webp(png: bytes, alt: str, widest: int) -> str:
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
            image = opened.convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"picture {alt[:60]!r}: the PNG is broken ({error}); write it anew") from error
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.width > widest:
        image = image.resize((widest, round(image.height * widest / image.width)), Image.Resampling.LANCZOS)
    few = image.quantize(_COLORS, dither=Image.Dither.NONE).convert("RGB")
    # Line drawings are smaller, and sharp, without loss; shaded surfaces with.
    smallest = min(
        (_written(few, lossless=True, quality=60, method=3), _written(image, quality=_QUALITY, method=4)), key=len
    )
    return f"data:image/webp;base64,{base64.b64encode(smallest).decode()}"


def _written(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", **options)
    return buffer.getvalue()
