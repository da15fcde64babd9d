"""Encoded images in any mode and size to RGB arrays of one size."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from srood import image_structure, pillow

MAX_PIXELS = pillow.BOMB  # by default: a quarter of a GiB of RGB
MOST_PIXELS = 2 * pillow.BOMB  # that can be asked for: beyond, Pillow refuses
MAX_ASPECT = 20  # beyond this the centre crop shows next to nothing of the image
RESAMPLING = "bilinear, antialiased (Pillow), short side to the image size, then centre crop"
REDUCING_GAP = 2  # a JPEG is never decoded below this many times the size; the default of Pillow's `Image.thumbnail`
REDUCED = f"JPEGs decoded at 1/2, 1/4 or 1/8 where that leaves {REDUCING_GAP} times the image size; {RESAMPLING}"

MAX_BYTES = 64 << 20  # by default, of one encoded image, or of one member of an archive once it is decompressed
MOST_BYTES = 1 << 31  # that can be asked for
BAND = 1 << 20  # pixels that are converted at a time, where a conversion takes several times the memory of an image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation

UNREADABLE = "unreadable file"  # the reason where a file cannot be read, rather than understood
REASONS = (
    "empty",
    UNREADABLE,
    "not an image",
    "truncated or corrupt",
    "too many bytes",
    "too many pixels",
    "too many scans",
    "too many segments",
    "unsupported mode",
    "extreme aspect ratio",
)  # for which `decode_batch` gives no image, besides those of `Unusable`


@dataclass(frozen=True)
class Limits:
    """What one image may cost to decode: larger ones are not decoded.

    Attributes:
        pixels: width times height; at most `MOST_PIXELS`. Decoding takes about 12 bytes of memory a pixel at most.
        bytes: of the encoded image
    """

    pixels: int = MAX_PIXELS
    bytes: int = MAX_BYTES


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Unusable:
    """Stands for an image that its container could not or would not give; counted under `reason`."""

    reason: str


Encoded = bytes | Path | np.ndarray | Image.Image | Unusable


class BadImage(Exception):
    """An image that cannot be used; the message is the reason under which such rows are counted."""


def decode(
    data: Encoded,
    reduce_to: int | None = None,
    original: np.ndarray | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image.Image:
    """Decode one image to RGB.

    EXIF orientation is applied where it can be read, CMYK and 16-bit images are converted, transparency is laid over
    white, and of an animation the first frame is taken. Encoded bytes are of one of `srood.pillow.FORMATS`.

    Args:
        data: the encoded bytes, a file holding them, an (H, W), (H, W, 1) or (H, W, 3) uint8 array, or an image that
            Pillow opened.
        reduce_to: a JPEG may be decoded at a half, a quarter or an eighth of its size as long as both sides keep this
            many pixels, several times as fast (libjpeg's DCT scaling, Pillow's `Image.draft`). An image that Pillow
            opened is not, since it would stay small for its owner too.
        original: (2,) int, filled with the width and height that the whole image has.
        limits: beyond which nothing is decoded.

    Raises:
        BadImage: with the reason ``empty``, ``unreadable file``, ``not an image``, ``truncated or corrupt``,
            ``too many bytes``, ``too many pixels``, ``too many scans``, ``too many segments`` or
            ``unsupported mode``, or that of an `Unusable`.
    """
    if isinstance(data, Unusable):
        raise BadImage(data.reason)
    with pillow.as_it_comes():
        if isinstance(data, Image.Image):
            return _loaded(data, None, original, limits)
        if isinstance(data, np.ndarray):
            return _loaded(_of_array(data, limits), None, original, limits)
        if isinstance(data, Path):
            data = _read_file(data, limits)
        if not data:
            raise BadImage("empty")
        if len(data) > limits.bytes:
            raise BadImage("too many bytes")
        if refusal := image_structure.refusal(data, limits.pixels):
            raise BadImage(refusal)
        try:
            image = pillow.open_image(data)
        except UnidentifiedImageError as error:
            raise BadImage("not an image") from error
        except Image.DecompressionBombError as error:
            raise BadImage("too many pixels") from error
        except Exception as error:  # codecs raise nearly anything on a corrupt header
            raise BadImage("truncated or corrupt") from error
        jpeg = image.format in ("JPEG", "MPO")
        if jpeg and image_structure.too_many_scans(data, image.width * image.height, limits.pixels):
            raise BadImage(image_structure.TOO_MANY_SCANS)
        return _loaded(image, reduce_to, original, limits)


def _loaded(image: Image.Image, reduce_to: int | None, original: np.ndarray | None, limits: Limits) -> Image.Image:
    if image.width * image.height > limits.pixels:
        raise BadImage("too many pixels")
    if not image.width or not image.height:
        raise BadImage("truncated or corrupt")
    try:
        size = image.size
        wide = image.format == "TIFF" and image.mode == "I"  # 32 bits, of which nothing says what white is
        if reduce_to is not None and not _too_narrow(size):
            image.draft(None, (reduce_to, reduce_to))  # of other formats it does nothing
        image.load()
        orientation = _orientation(image)
        if orientation in TURNS:
            image = image.transpose(TURNS[orientation])
        if original is not None:
            original[:] = size[::-1] if orientation in (5, 6, 7, 8) else size  # these turn it by a quarter
        if wide and all(0 <= value <= 255 for value in np.ravel(image.getextrema())):
            image = image.convert("L")
        return _to_rgb(image)
    except BadImage:
        raise
    except Exception as error:
        raise BadImage("truncated or corrupt") from error


def _orientation(image: Image.Image) -> int:
    """By EXIF, 1 to 8; 1, as it is stored, where the EXIF data are damaged or say something else."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # nearly anything, of data that the pixels do not need
        return 1
    return int(found) if found in TURNS else 1


def _of_array(array: np.ndarray, limits: Limits) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise BadImage("unsupported mode")
    if not array.size:
        raise BadImage("empty")
    if array.shape[0] * array.shape[1] > limits.pixels:
        raise BadImage("too many pixels")
    return Image.fromarray(array.squeeze(2) if array.ndim == 3 and array.shape[2] == 1 else array)


def _read_file(path: Path, limits: Limits) -> bytes:
    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe may have taken the file's place since

    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would block, a device never end
            raise BadImage(UNREADABLE)
        if found.st_size > limits.bytes:
            raise BadImage("too many bytes")
        with open(path, "rb", opener=without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadImage(UNREADABLE)
            return file.read(limits.bytes + 1)
    except (OSError, ValueError) as error:
        raise BadImage(UNREADABLE) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _by_bands(image, _high_bytes)
    if image.mode in ("F", "LAB"):
        raise BadImage("unsupported mode")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _by_bands(image, _over_white)
    return image.convert("RGB")


def _by_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert some rows at a time, so that what the conversion needs besides is never as large as the image."""
    rows = max(1, BAND // image.width)
    if image.height <= rows:
        return convert(image)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        whole.paste(convert(image.crop(box)), box)
    return whole


def _high_bytes(image: Image.Image) -> Image.Image:
    """16-bit grey by its high bytes; Pillow's own conversion would clip it at 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise BadImage("unsupported mode")
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


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
    data: Encoded,
    size: int,
    original: np.ndarray | None = None,
    reduced: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> np.ndarray | str:
    """One image as (size, size, 3) uint8, or the reason why it cannot be used; `original` gets width and height.

    With `reduced`, large JPEGs are not decoded in full (`REDUCED`).
    """
    try:
        with pillow.as_it_comes():
            return np.asarray(fit(decode(data, REDUCING_GAP * size if reduced else None, original, limits), size))
    except BadImage as reason:
        return str(reason)


def decode_batch(
    batch: Sequence[Encoded],
    size: int,
    pool: Executor | None = None,
    originals: np.ndarray | None = None,
    reduced: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[np.ndarray, list[str | None]]:
    """Decode many images, in order, on the threads of `pool` (Pillow decodes outside the GIL).

    Args:
        batch: N encoded images.
        size: side of the images in pixels.
        pool: threads; None decodes in the caller's.
        originals: (N, 2) int, filled with width and height before resizing; 0 where an image is bad.
        reduced: do not decode large JPEGs in full (`REDUCED`).
        limits: beyond which an image is bad.

    Returns:
        images: (N, size, size, 3) uint8, black where an image is bad
        reasons: N entries, None where the image is good
    """
    images = np.zeros((len(batch), size, size, 3), dtype=np.uint8)
    reasons: list[str | None] = [None] * len(batch)

    def decode_rows(start: int) -> None:
        for row in range(start, min(start + step, len(batch))):
            original = None if originals is None else originals[row]
            result = decode_to_size(batch[row], size, original, reduced, limits)
            if isinstance(result, str):
                reasons[row] = result
            else:
                images[row] = result

    step = 64  # a task's overhead is about that of one image
    list((pool.map if pool else map)(decode_rows, range(0, len(batch), step)))
    return images, reasons
