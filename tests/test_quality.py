import io

import numpy as np
import pytest
from pictures import pictures, write_parquet
from PIL import Image

from curate import quality
from curate.build import build
from curate.config import BuildConfig
from srood import datasets, images
from srood.errors import InputError


def originals(count, width=64, height=64):
    return np.tile([width, height], (count, 1))


def test_contrast_is_the_largest_standard_deviation_of_a_channel():
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8) // rng.integers(1, 60, (20, 1, 1, 3), dtype=np.uint8)
    expected = [max(image[..., c].astype(float).std() for c in range(3)) for image in arrays]
    assert np.allclose(quality.contrast(arrays), expected, rtol=1e-12)
    assert quality.contrast(arrays[:0]).shape == (0,)


def test_half_and_half_has_a_contrast_of_half_the_step():
    image = np.full((1, 32, 32, 3), 100, np.uint8)
    for step, reason in ((1, "blank"), (2, "near-constant"), (7, "near-constant"), (8, None), (200, None)):
        image[0, :, 16:, 1] = (100 + step) % 256  # one channel: grey levels alone would see half of it
        assert quality.contrast(image)[0] == abs(image[0, 0, 31, 1] - 100.0) / 2
        assert quality.problems(image, originals(1)) == [reason]


def test_colours_of_one_brightness_are_no_blank():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, :16, :, 0], image[0, 16:, :, 1] = 59, 30  # the luminance of both is 17.6
    assert quality.problems(image, originals(1)) == [None]


@pytest.mark.parametrize("jpeg", [False, True])
def test_blank_images_are_found_through_noise_and_jpeg(jpeg):
    rng = np.random.default_rng(1)
    flat = np.clip(rng.integers(20, 236, (20, 1, 1, 3)) + rng.normal(0, 2, (20, 64, 64, 3)), 0, 255).astype(np.uint8)
    if jpeg:
        flat = np.stack([_jpeg(image) for image in flat])
    small, reasons = images.decode_batch(list(flat), 32)
    assert reasons == [None] * 20
    assert all(quality.problems(small, originals(20)))
    assert quality.problems(pictures(20, seed=3), originals(20)) == [None] * 20


def _jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def test_what_was_enlarged_too_much():
    array = pictures(3, seed=1)
    sizes = np.array([[16, 100], [15, 15], [32, 8]])
    assert quality.problems(array, sizes) == [None, None, None]
    assert quality.problems(array, sizes, max_upscale=2.0) == [None, "enlarged too much", "enlarged too much"]
    assert quality.problems(array * 0, sizes, "none", 3.0) == [None, None, "enlarged too much"]
    assert quality.problems(array * 0, sizes, "none") == [None] * 3


def test_decoding_tells_the_size_of_the_originals():
    batch = [np.zeros((40, 60, 3), np.uint8), b"", _png(17, 90)]
    sizes = np.zeros((3, 2), np.int64)
    images.decode_batch(batch, 32, None, sizes)
    assert sizes.tolist() == [[60, 40], [0, 0], [17, 90]]


def _png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_build_counts_what_shows_nothing(tmp_path):
    write_parquet(tmp_path / "id" / "train.parquet", pictures(40, seed=1), [i % 2 for i in range(40)], ["a", "b"])
    corpus = list(pictures(30, seed=2))
    corpus[3][:] = 77
    corpus[4] = np.clip(corpus[4] * 0.0 + 90 + np.linspace(0, 8, 32)[:, None, None], 0, 255).astype(np.uint8)
    corpus[5] = np.asarray(Image.fromarray(corpus[5]).resize((12, 12), 2))
    write_parquet(tmp_path / "corpus.parquet", corpus, [0] * 30)
    common = {"source": (str(tmp_path / "corpus.parquet"),), "id": str(tmp_path / "id"), "size": 99, "batch_rows": 8}
    common |= {"dry_run": True, "protect": ("none",), "calibration_images": 30, "out": tmp_path / "a.h5"}

    def stage(**changes):
        manifest = build(BuildConfig(**common, **changes)).manifest
        return next(entry for entry in manifest["stages"] if entry["stage"] == "quality"), manifest["config"]["quality"]

    found, recorded = stage()
    assert (found["seen"], found["dropped"]) == (30, {"blank": 1, "near-constant": 1})
    assert recorded == {"blank_below": 1.0, "near_constant_below": 4.0, "max_aspect": 20, "max_upscale": None}
    assert stage(max_upscale=2.5)[0]["dropped"] == {"blank": 1, "near-constant": 1, "enlarged too much": 1}
    found, recorded = stage(quality="none")
    assert (found["dropped"], recorded) == ({}, None)
    for changes, words in (
        ({"quality": "hard"}, "--quality hard: is unknown"),
        ({"max_upscale": 0.5}, "--max-upscale"),
    ):
        with pytest.raises(InputError, match=words):
            stage(**changes)


def test_no_real_image_of_tiny_imagenet_is_near_the_threshold(srood_data, monkeypatch):
    """The 2,000 rows measured here: the lowest contrast of all 30,000 is 7.8 (docs/sources.md)."""
    monkeypatch.setenv("SROOD_DATA", str(srood_data))
    rows = [row.data for row, _ in zip(datasets.resolve("tiny-imagenet:corpus").rows(), range(2000), strict=False)]
    pixels, _ = images.decode_batch(rows, 32)
    assert quality.problems(pixels, originals(2000)) == [None] * 2000
    assert quality.contrast(pixels).min() > 1.5 * quality.NEAR_CONSTANT_BELOW
