"""Synthetic copies of images, and the threshold that calibration on them gives."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance


@dataclass(frozen=True)
class CopyThreshold:
    """Two images whose similarity is at least `similarity` are the same picture; and how that was found.

    `curve` lists at rising `similarity` the share of synthetic `copies`, and the share of images whose most similar
    `different` image is, at or above it. `recall` is the share of copies found at the threshold by kind of copy,
    `different` the share of images of the sample (of `images`) that would be taken for a copy of another one.
    """

    similarity: float
    recall: dict[str, float]
    different: float
    images: int
    seed: int
    curve: dict[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CopyThreshold:
        """The inverse of `to_dict`."""
        return cls(**values)


def synthetic_copies(images: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A copy of each of `images` (uint8 (N, H, W, 3), the same out), changed as `kind`, a key of COPIES, says."""
    if kind not in COPIES:
        raise ValueError(f"{kind!r} is not a kind of copy: {', '.join(COPIES)}")
    out = np.empty_like(images)
    for row, image in enumerate(images):
        picture = Image.fromarray(np.ascontiguousarray(image))
        for change in COPIES[kind]:
            picture = change(picture, rng)
        out[row] = np.asarray(picture)
    return out


def _flip(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _shift(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By up to 3 pixels in 32 each way; what comes in is black or repeats the edge."""
    pixels = np.asarray(picture)
    reach = max(1, round(3 / 32 * min(pixels.shape[:2])))
    top, left = rng.integers(0, 2 * reach + 1, 2)
    pad = ((reach, reach), (reach, reach), (0, 0))
    padded = np.pad(pixels, pad) if rng.random() < 0.5 else np.pad(pixels, pad, mode="edge")
    return Image.fromarray(np.ascontiguousarray(padded[top : top + pixels.shape[0], left : left + pixels.shape[1]]))


def _crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """80 to 95 % of the width and of the height, blown up again."""
    width, height = picture.size
    share = rng.uniform(0.8, 0.95)
    left, top = rng.uniform(0, 1 - share, 2) * (width, height)
    box = (left, top, left + share * width, top + share * height)
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)


def _scale(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Down to 60 to 90 % and up again."""
    small = [max(1, round(n * rng.uniform(0.6, 0.9))) for n in picture.size]
    reduced = picture.resize((small[0], small[1]), Image.Resampling.BICUBIC)
    return reduced.resize(picture.size, Image.Resampling.BILINEAR)


def _jpeg(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=int(rng.integers(40, 91)))
    return Image.open(data).convert("RGB")


def _light(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness and contrast between 75 and 125 %."""
    picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.75, 1.25))
    return ImageEnhance.Contrast(picture).enhance(rng.uniform(0.75, 1.25))


def _colour(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Saturation between none and 150 %, each channel between 85 and 115 %."""
    pixels = np.asarray(ImageEnhance.Color(picture).enhance(rng.uniform(0.0, 1.5)), np.float32)
    return Image.fromarray(np.clip(pixels * rng.uniform(0.85, 1.15, 3), 0, 255).astype(np.uint8))


def _mark(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A frame of a sixteenth of the side, or a line of text in a corner."""
    picture, side = picture.copy(), min(picture.size)
    draw = ImageDraw.Draw(picture)
    ink = tuple(int(x) for x in rng.integers(0, 256, 3))
    if rng.random() < 0.5:
        draw.rectangle((0, 0, picture.width - 1, picture.height - 1), outline=ink, width=max(1, side // 16))
    else:
        draw.text((1, int(rng.choice([-2, picture.height - side / 3]))), "(c) pic", fill=ink, font_size=side / 3.5)
    return picture


COPIES: dict[str, tuple[Callable[[Image.Image, np.random.Generator], Image.Image], ...]] = {
    "flip": (_flip,),
    "shift": (_shift,),
    "crop": (_crop,),
    "scale": (_scale,),
    "jpeg": (_jpeg,),
    "light": (_light,),
    "colour": (_colour,),
    "mark": (_mark,),
    "flip+shift+light+jpeg": (_flip, _shift, _light, _jpeg),
}
