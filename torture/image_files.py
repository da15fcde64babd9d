"""Small image files of every format and kind, made as they are needed."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

EXTENSIONS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "GIF": ".gif",
    "TIFF": ".tif",
    "BMP": ".bmp",
}  # of the formats that are cut and flipped


def picture(height: int = 40, width: int = 48) -> np.ndarray:
    """(height, width, 3) uint8: a gradient, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // max(1, width - 1), y * 255 // max(1, height - 1)
    return np.stack([red, green, (x * 5 + y * 3) % 256], axis=2).astype(np.uint8)


def blocks(rng: np.random.Generator) -> np.ndarray:
    """(32, 32, 3) uint8: squares of random colours, so that no two are copies of one picture."""
    return rng.integers(0, 256, (4, 4, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    """An image file's bytes."""
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_format(height: int = 40, width: int = 48) -> dict[str, bytes]:
    """A plain file of each format of `EXTENSIONS`."""
    return {name: encoded(picture(height, width), name) for name in EXTENSIONS}


def animation(kind: str, frames: int = 3, side: int = 48) -> bytes:
    """Frames of one colour each, of which the first is `picture`."""
    rest = [Image.new("RGB", (side, side), (0, 0, number % 256)) for number in range(1, frames)]
    options: dict[str, object] = {"lossless": True} if kind == "WebP" else {}
    return encoded(picture(side, side), kind, save_all=True, append_images=rest, **options)


def varied(height: int = 20, width: int = 24) -> dict[str, list[bytes]]:
    """Several files of each format, of different modes, codings and metadata, to be mutated."""
    pixels = picture(height, width)
    image = Image.fromarray(pixels)
    alpha = Image.fromarray(np.dstack([pixels, pixels[:, :, :1]]))
    palette = image.quantize(16)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    sixteen = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    files = {
        "JPEG": [
            encoded(image, "JPEG", exif=exif, icc_profile=profile),
            encoded(image, "JPEG", progressive=True, comment="comment"),
            encoded(image.convert("CMYK"), "JPEG"),
            encoded(image.convert("L"), "JPEG", restart_marker_blocks=1),
        ],
        "PNG": [
            encoded(image, "PNG", exif=exif, icc_profile=profile),
            encoded(palette, "PNG", transparency=3),
            encoded(sixteen, "PNG"),
            encoded(alpha, "PNG"),
            animation("PNG", 2, 16),
        ],
        "WebP": [
            encoded(image, "WebP", exif=exif),
            encoded(alpha, "WebP", lossless=True),
            animation("WebP", 3, 16),
        ],
        "GIF": [encoded(palette, "GIF", transparency=2), animation("GIF", 3, 16)],
        "TIFF": [
            encoded(image, "TIFF", exif=exif),
            *[encoded(image, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")],
            encoded(image.convert("1"), "TIFF", compression="group4"),
            encoded(sixteen, "TIFF"),
        ],
        "BMP": [encoded(image, "BMP"), encoded(palette, "BMP")],
        "PPM": [encoded(image, "PPM"), b"P2 3 2 255 1 2 3 4 5 6"],
    }
    for name, kind, options in (("JPEG2000", "JPEG2000", {}), ("AVIF", "AVIF", {"speed": 10, "max_threads": 1})):
        Image.init()
        if kind in Image.SAVE:
            files[name] = [encoded(image, kind, **options)]
    return files


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
