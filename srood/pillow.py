"""Pillow for bytes that are not trusted: which formats it opens, and its global switches while it decodes."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from PIL import Image, ImageFile

# Raster formats whose codecs Pillow carries itself. Left out above all: EPS, for which it starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
BOMB = 89_478_485  # pixels from which Pillow warns, as it comes; from twice as many on it refuses to open an image

_lock = threading.Lock()
_inside = 0
_restore = ExitStack()


@cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with; it would raise at the name of another."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_image(data: bytes) -> Image.Image:
    """Read the header of an encoded image; raises what Pillow raises."""
    return Image.open(io.BytesIO(data), formats=formats())


@contextmanager
def as_it_comes() -> Iterator[None]:
    """Decode as Pillow does by default, whatever else in this process has set; warnings are silenced.

    A library that sets ``ImageFile.LOAD_TRUNCATED_IMAGES`` would have half an image pass for a whole one. The switches
    are global: the first thread that comes in sets them, the last that goes out puts back what was there. If each did
    so for itself, the last out would put back what the first had set.
    """
    global _inside
    with _lock:
        if _inside == 0:
            _set()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _restore.close()


def _set() -> None:
    _restore.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large images, which are checked by the caller
    _restore.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < BOMB:
        _restore.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = BOMB
