"""The demonstration's image sets, from pictures that come inside installed packages: nothing is downloaded.

ID images are scikit-learn's handwritten digits; corpus and OOD images are crops of photographs that scikit-image and
scikit-learn carry. No photograph serves both.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = 32
CORPUS_PHOTOGRAPHS = (
    *("astronaut", "coffee", "coins", "hubble_deep_field", "immunohistochemistry", "moon", "flower"),
    *("motorcycle", "rocket", "retina", "text", "cell", "colorwheel"),
)
OOD_SETS = {
    "photographs": ("camera", "cat", "china"),
    "textures": ("brick", "grass", "gravel"),
    "print": ("page", "clock"),
}
CROPS_PER_PHOTOGRAPH = 170
OOD_IMAGES = 600
PLANTED_LEAKS = 60
PLANTED_DIGITS = 60
PLANTED_REPEATS = 40


@dataclass(frozen=True)
class DemoImages:
    """Where the sets were written, and how many rows of each kind were planted in the corpus."""

    id: Path
    corpus: Path
    exclusions: Path
    ood: dict[str, Path]
    planted: dict[str, int]


def write_demo_images(folder: Path, seed: int) -> DemoImages:
    """Write ID, corpus and OOD sets as Parquet files under `folder`."""
    rng = np.random.default_rng(seed)
    digits, labels = load_digits(rng)
    held_out = np.arange(len(digits)) % 4 == 3
    names = [str(number) for number in range(10)]
    write_images(folder / "id" / "train.parquet", [png(d) for d in digits[~held_out]], labels[~held_out], names)
    write_images(folder / "id" / "test.parquet", [png(d) for d in digits[held_out]], labels[held_out], names)

    crops, sources = [], []
    for number, name in enumerate(CORPUS_PHOTOGRAPHS):
        crops += [png(crop) for crop in cut(photograph(name), CROPS_PER_PHOTOGRAPH, rng)]
        sources += [number] * CROPS_PER_PHOTOGRAPH
    test_digits = digits[held_out]
    leaks = [_jpeg(shift_and_brighten(d, rng)) for d in test_digits[rng.permutation(len(test_digits))[:PLANTED_LEAKS]]]
    more_digits = [png(turn(d, rng)) for d in digits[~held_out][:PLANTED_DIGITS]]
    repeats = [crops[row] for row in rng.permutation(len(crops))[:PLANTED_REPEATS]]
    broken = [b"", b"<html>404</html>", crops[0][:200]]
    rows = crops + leaks + more_digits + repeats + broken
    corpus_names = [*CORPUS_PHOTOGRAPHS, "unsorted", "digits"]
    kinds = sources + [len(CORPUS_PHOTOGRAPHS)] * len(leaks) + [len(CORPUS_PHOTOGRAPHS) + 1] * len(more_digits)
    kinds += [len(CORPUS_PHOTOGRAPHS)] * (len(repeats) + len(broken))
    order = rng.permutation(len(rows))
    write_images(folder / "corpus.parquet", [rows[i] for i in order], np.array(kinds)[order], corpus_names)
    exclusions = folder / "exclude.txt"
    exclusions.write_text("# corpus labels that show an ID class\ndigits\n", encoding="utf-8")

    ood = {}
    for name, photographs in OOD_SETS.items():
        cuts = [cut(photograph(p), OOD_IMAGES // len(photographs), rng) for p in photographs]
        pictures = [png(picture) for part in cuts for picture in part]
        ood[name] = write_images(folder / "ood" / f"{name}.parquet", pictures, np.full(len(pictures), -1), [])
    planted = {
        "copies of ID test images": len(leaks),
        "images labelled 'digits'": len(more_digits),
        "repeated rows": len(repeats),
        "broken files": len(broken),
    }
    return DemoImages(folder / "id", folder / "corpus.parquet", exclusions, ood, planted)


def load_digits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits dark on light in varied tints, (N, 32, 32, 3) uint8, and labels."""
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    grey = np.stack(
        [
            np.asarray(
                Image.fromarray((image.reshape(8, 8) * 15.9).astype(np.uint8)).resize(
                    (SIZE, SIZE), Image.Resampling.BICUBIC
                )
            )
            for image in images
        ]
    )[..., None]
    paper, ink = rng.integers(170, 256, (len(grey), 1, 1, 3)), rng.integers(0, 90, (len(grey), 1, 1, 3))
    coloured = paper + (ink - paper) * (grey / 255.0) + rng.normal(0, 4, (*grey.shape[:3], 3))
    return np.clip(coloured, 0, 255).astype(np.uint8), labels.astype(np.int64)


def photograph(name: str) -> Image.Image:
    """A photograph that scikit-image or scikit-learn carries, in RGB.

    Raises:
        ImportError: scikit-image is not installed (``pip install 'srood[demo]'``).
    """
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    from importlib.resources import files

    files_of = {"cat": "chelsea.png", "colorwheel": "color.png", "clock": "clock_motion.png"}
    files_of |= {"immunohistochemistry": "ihc.png", "motorcycle": "motorcycle_left.png"}
    files_of |= {name: f"{name}.jpg" for name in ("hubble_deep_field", "retina", "rocket")}
    path = files("skimage.data") / files_of.get(name, f"{name}.png")
    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


def cut(picture: Image.Image, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random square crops of 40 to 140 pixels, scaled to 32."""
    crops = []
    for _ in range(count):
        side = int(rng.integers(40, min(140, *picture.size)))
        left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
        crop = picture.crop((left, top, left + side, top + side))
        crops.append(np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
    return crops


def shift_and_brighten(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy shifted by up to 2 pixels and brightened by a tenth: a leak."""
    moved = np.roll(image, tuple(rng.integers(-2, 3, 2)), axis=(0, 1))
    return np.clip(moved * 1.1, 0, 255).astype(np.uint8)


def turn(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A digit turned by up to a third of a right angle: not a copy, but it shows the class."""
    return np.asarray(Image.fromarray(image).rotate(float(rng.uniform(-30, 30)), Image.Resampling.BILINEAR))


def png(image: np.ndarray) -> bytes:
    """An image, (H, W, 3) uint8, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def write_images(path: Path, images: Sequence[bytes], labels: np.ndarray, names: Sequence[str]) -> Path:
    """Encoded images as the Hub stores them, Parquet with columns `image` and `label`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": data, "path": None} for data in images], kind)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": rows, "label": pa.array(labels)}).replace_schema_metadata(metadata)
    pq.write_table(table, path)
    return path
