"""Encoded images in any mode and size to RGB arrays of one size."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485  # Pillow's own limit for a decompression bomb: a quarter of a GiB of RGB
MAX_ASPECT = 20  # beyond this the centre crop shows next to nothing of the image
RESAMPLING = "bilinear, antialiased (Pillow), short side to the image size, then centre crop"
REDUCING_GAP = 2  # a JPEG is never decoded below this many times the size; the default of Pillow's `Image.thumbnail`
REDUCED = f"JPEGs decoded at 1/2, 1/4 or 1/8 where that leaves {REDUCING_GAP} times the image size; {RESAMPLING}"

UNREADABLE = "unreadable file"  # the reason where a file cannot be read, rather than understood
MAX_BYTES = 64 << 20  # of one encoded image, or of one member of an archive once it is decompressed


@dataclass(frozen=True)
class Unusable:
    """Stands for an image that its container could not or would not give; counted under `reason`."""

    reason: str


Encoded = bytes | Path | np.ndarray | Image.Image | Unusable


class BadImage(Exception):
    """An image that cannot be used; the message is the reason under which such rows are counted."""


def decode(data: Encoded, reduce_to: int | None = None, original: np.ndarray | None = None) -> Image.Image:
    """Decode one image to RGB.

    EXIF orientation is applied, CMYK and 16-bit images are converted, transparency is laid over white, and of an
    animation the first frame is taken.

    Args:
        data: the encoded bytes, a file holding them, an (H, W), (H, W, 1) or (H, W, 3) uint8 array, or an image that
            Pillow opened.
        reduce_to: a JPEG may be decoded at a half, a quarter or an eighth of its size as long as both sides keep this
            many pixels, several times as fast (libjpeg's DCT scaling, Pillow's `Image.draft`). An image that Pillow
            opened is not, since it would stay small for its owner too.
        original: (2,) int, filled with the width and height that the whole image has.

    Raises:
        BadImage: with the reason ``empty``, ``unreadable file``, ``not an image``, ``truncated or corrupt``,
            ``too many bytes``, ``too many pixels`` or ``unsupported mode``, or that of an `Unusable`.
    """
    if isinstance(data, Unusable):
        raise BadImage(data.reason)
    if isinstance(data, Image.Image):
        return _loaded(data, None, original)
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim not in (2, 3) or (data.ndim == 3 and data.shape[2] not in (1, 3)):
            raise BadImage("unsupported mode")
        return _loaded(
            Image.fromarray(data.squeeze(2) if data.ndim == 3 and data.shape[2] == 1 else data), None, original
        )
    if isinstance(data, Path):
        data = _read_file(data)
    if not data:
        raise BadImage("empty")
    if len(data) > MAX_BYTES:
        raise BadImage("too many bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large images, which are checked here
        try:
            image: Image.Image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            raise BadImage("not an image") from error
        except Image.DecompressionBombError as error:
            raise BadImage("too many pixels") from error
        except Exception as error:  # codecs raise nearly anything on a corrupt header
            raise BadImage("truncated or corrupt") from error
        return _loaded(image, reduce_to, original)


def _loaded(image: Image.Image, reduce_to: int | None, original: np.ndarray | None) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise BadImage("too many pixels")
    try:
        size = image.size
        if reduce_to is not None and not _too_narrow(size):
            image.draft(None, (reduce_to, reduce_to))  # of other formats it does nothing
        image.load()
        if (orientation := image.getexif().get(0x0112, 1)) != 1:
            image = ImageOps.exif_transpose(image)
        if original is not None:
            original[:] = size[::-1] if orientation in (5, 6, 7, 8) else size  # these turn it by a quarter
        return _to_rgb(image)
    except BadImage:
        raise
    except Exception as error:
        raise BadImage("truncated or corrupt") from error


def _read_file(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would block, a device never end
            raise BadImage(UNREADABLE)
        if found.st_size > MAX_BYTES:
            raise BadImage("too many bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadImage(UNREADABLE) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit greyscale, which Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65_535:
            raise BadImage("unsupported mode")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("unsupported mode")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, size: int) -> Image.Image:
    """Resize the short side to `size` and crop the centre (torchvision's Resize and CenterCrop; paper, evaluation).

    Raises:
        BadImage: ``extreme aspect ratio``, over 20 to 1.
    """
    if image.size == (size, size):
        return image
    width, height = image.size
    if _too_narrow(image.size):
        raise BadImage("extreme aspect ratio")
    scale = size / min(width, height)
    resized = (max(size, round(width * scale)), max(size, round(height * scale)))
    image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
    return image.crop((left, top, left + size, top + size))


def _too_narrow(size: tuple[int, int]) -> bool:
    return max(size) > MAX_ASPECT * min(size)


def decode_to_size(
    data: Encoded, size: int, original: np.ndarray | None = None, reduced: bool = False
) -> np.ndarray | str:
    """One image as (size, size, 3) uint8, or the reason why it cannot be used; `original` gets width and height.

    With `reduced`, large JPEGs are not decoded in full (`REDUCED`).
    """
    try:
        return np.asarray(fit(decode(data, REDUCING_GAP * size if reduced else None, original), size))
    except BadImage as reason:
        return str(reason)


def decode_batch(
    batch: Sequence[Encoded],
    size: int,
    pool: Executor | None = None,
    originals: np.ndarray | None = None,
    reduced: bool = False,
) -> tuple[np.ndarray, list[str | None]]:
    """Decode many images, in order, on the threads of `pool` (Pillow decodes outside the GIL).

    Args:
        batch: N encoded images.
        size: side of the images in pixels.
        pool: threads; None decodes in the caller's.
        originals: (N, 2) int, filled with width and height before resizing; 0 where an image is bad.
        reduced: do not decode large JPEGs in full (`REDUCED`).

    Returns:
        images: (N, size, size, 3) uint8, black where an image is bad
        reasons: N entries, None where the image is good
    """
    images = np.zeros((len(batch), size, size, 3), dtype=np.uint8)
    reasons: list[str | None] = [None] * len(batch)

    def decode_rows(start: int) -> None:
        for row in range(start, min(start + step, len(batch))):
            result = decode_to_size(batch[row], size, None if originals is None else originals[row], reduced)
            if isinstance(result, str):
                reasons[row] = result
            else:
                images[row] = result

    step = 64  # a task's overhead is about that of one image
    list((pool.map if pool else map)(decode_rows, range(0, len(batch), step)))
    return images, reasons
