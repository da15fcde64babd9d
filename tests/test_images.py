import io
import os
import warnings

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from srood import images


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(height: int = 40, width: int = 48) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 256], axis=2).astype(np.uint8)


def test_png_pixels_come_back_exactly():
    pixels = gradient()
    assert np.array_equal(np.asarray(images.decode(encode(Image.fromarray(pixels), "PNG"))), pixels)


def test_arrays_and_files_decode_like_bytes(tmp_path):
    pixels = gradient()
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(pixels), "PNG"))
    assert np.array_equal(np.asarray(images.decode(path)), pixels)
    assert np.array_equal(np.asarray(images.decode(pixels)), pixels)
    assert np.array_equal(np.asarray(images.decode(pixels[:, :, :1])), np.repeat(pixels[:, :, :1], 3, axis=2))


def test_sixteen_bit_grey_keeps_its_high_byte():
    values = np.linspace(0, 65_535, 32 * 32).reshape(32, 32).astype(np.uint16)
    decoded = np.asarray(images.decode(encode(Image.fromarray(values), "PNG")))
    assert np.array_equal(decoded[:, :, 0], values // 256)
    assert np.array_equal(decoded[:, :, 0], decoded[:, :, 2])


@pytest.mark.parametrize("height", [24, 600])  # of one band, and of more
def test_whole_numbers_of_32_bits_are_eight_or_sixteen_by_the_largest(height, monkeypatch):
    monkeypatch.setattr(images, "BAND", 32 * 100)
    values = (np.arange(height * 32) % 256).reshape(height, 32).astype(np.int32)
    for factor in (1, 256):
        decoded = np.asarray(images.decode(encode(Image.fromarray(values * factor), "TIFF")))
        assert np.array_equal(decoded[:, :, 1], values)
    values[0, 0] = -1
    with pytest.raises(images.BadImage, match="unsupported mode"):
        images.decode(encode(Image.fromarray(values), "TIFF"))


def test_cmyk_becomes_rgb():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :, 0] = 255  # full cyan: no red, all green and blue
    decoded = np.asarray(images.decode(encode(Image.fromarray(ink, "CMYK"), "TIFF")))
    assert np.array_equal(decoded[0, 0], [0, 255, 255])


def test_transparency_lies_over_white():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :, 0] = 200
    pixels[:, 4:, 3] = 255
    decoded = np.asarray(images.decode(encode(Image.fromarray(pixels, "RGBA"), "PNG")))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 7].tolist() == [200, 0, 0]


def test_palette_with_transparent_index():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(1, (4, 0, 8, 8))
    decoded = np.asarray(images.decode(encode(image, "PNG", transparency=0)))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 7].tolist() == [40, 50, 60]


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(images.decode(data))[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_applied():
    pixels = gradient(8, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown by turning a quarter to the right
    data = encode(Image.fromarray(pixels), "PNG", exif=exif)
    assert np.array_equal(np.asarray(images.decode(data)), np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!doctype html><html><body>404</body></html>", "not an image"),
        (encode(Image.fromarray(gradient()), "PNG")[:100], "truncated or corrupt"),
        (encode(Image.fromarray(gradient()), "JPEG")[:700], "truncated or corrupt"),
        (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "unsupported mode"),
        (encode(Image.new("1", (12_000, 9_000)), "PNG"), "too many pixels"),
        (encode(Image.new("L", (21 * 32, 32)), "PNG"), "extreme aspect ratio"),
    ],
)
def test_bad_images_are_named(data, reason):
    assert images.decode_to_size(data, 32) == reason


def test_what_a_container_would_not_give_keeps_its_reason():
    assert images.decode_to_size(images.Unusable("link or device"), 32) == "link or device"
    limits = images.Limits(bytes=1000)
    assert images.decode_to_size(bytes(1000), 32, limits=limits) == "not an image"
    assert images.decode_to_size(bytes(1001), 32, limits=limits) == "too many bytes"


def test_missing_file_is_a_bad_image(tmp_path):
    assert images.decode_to_size(tmp_path / "gone.png", 32) == "unreadable file"


def test_fit_is_resize_of_the_short_side_then_centre_crop():
    pixels = gradient(40, 80)
    expected = Image.fromarray(pixels).resize((64, 32), Image.Resampling.BILINEAR).crop((16, 0, 48, 32))
    assert np.array_equal(np.asarray(images.fit(Image.fromarray(pixels), 32)), np.asarray(expected))


def test_batch_keeps_order_and_reasons():
    from concurrent.futures import ThreadPoolExecutor

    batch = [np.full((32, 32, 3), value, np.uint8) for value in range(200)]
    batch[77] = b""
    with ThreadPoolExecutor(3) as pool:
        decoded, reasons = images.decode_batch(batch, 32, pool)
    assert decoded[:, 0, 0, 0].tolist() == [0 if value == 77 else value for value in range(200)]
    assert [row for row, reason in enumerate(reasons) if reason] == [77]
    assert reasons[77] == "empty"


@pytest.fixture(scope="module")
def photo() -> bytes:
    """500x400, as JPEG."""
    from skimage import data

    picture = Image.fromarray(data.astronaut()[:400, :500])
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize(("keep", "size"), [(64, (125, 100)), (100, (125, 100)), (101, (250, 200)), (201, (500, 400))])
def test_a_jpeg_is_decoded_at_the_scale_that_keeps_enough_pixels(photo: bytes, keep: int, size: tuple) -> None:
    original = np.zeros(2, int)
    assert images.decode(photo, keep, original).size == size
    assert original.tolist() == [500, 400]


def test_a_reduced_image_looks_the_same(photo: bytes) -> None:
    whole, reduced = (images.decode_to_size(photo, 32, reduced=way).astype(int) for way in (False, True))
    assert 0 < np.abs(whole - reduced).mean() < 2.5  # grey levels


def test_small_jpegs_and_other_formats_are_never_reduced(photo: bytes) -> None:
    picture = Image.open(io.BytesIO(photo))
    for format, side in (("JPEG", 127), ("PNG", 400)):
        buffer = io.BytesIO()
        picture.crop((0, 0, side, side)).save(buffer, format)
        whole, reduced = (images.decode_to_size(buffer.getvalue(), 32, reduced=way) for way in (False, True))
        assert np.array_equal(whole, reduced)


def test_the_original_size_is_that_of_the_turned_image() -> None:
    buffer, original = io.BytesIO(), np.zeros(2, int)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200), "red").save(buffer, "JPEG", exif=exif)
    assert images.decode(buffer.getvalue(), 32, original).size == (50, 75)
    assert original.tolist() == [200, 300]


def test_an_image_that_pillow_opened_keeps_its_size(photo: bytes) -> None:
    picture, original = Image.open(io.BytesIO(photo)), np.zeros(2, int)
    for size in (16, 32, 64):
        found = images.decode_to_size(picture, size, original, reduced=True)
        assert np.array_equal(found, images.decode_to_size(photo, size))
        assert original.tolist() == [500, 400] and picture.size == (500, 400)


@pytest.mark.parametrize(("height", "reason"), [(513, "extreme aspect ratio"), (520, None)])
def test_the_aspect_is_that_of_the_whole_image(height: int, reason: str | None) -> None:
    data = encode(Image.new("RGB", (10_400, height), "red"), "JPEG")  # an eighth of 513 is 65 pixels: 20 to 1
    for reduced in (False, True):
        assert images.decode_batch([data], 32, reduced=reduced)[1] == [reason]


def test_what_another_library_set_in_pillow_changes_nothing(monkeypatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    whole = encode(Image.fromarray(gradient()), "JPEG")
    assert images.decode_batch([whole[:700], whole], 32)[1] == ["truncated or corrupt", None]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True and Image.MAX_IMAGE_PIXELS == 10


def test_threads_leave_the_filters_of_warnings_as_they_were() -> None:
    from concurrent.futures import ThreadPoolExecutor

    before = list(warnings.filters)
    batch = [encode(Image.fromarray(gradient()), "PNG")] * 2000
    with ThreadPoolExecutor(8) as pool:
        images.decode_batch(batch, 32, pool)
    assert list(warnings.filters) == before


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PDF"])
def test_only_raster_formats_are_opened(kind: str) -> None:
    assert images.decode_to_size(encode(Image.fromarray(gradient(64, 64)), kind), 32) == "not an image"


def test_ghostscript_is_never_started(tmp_path, monkeypatch) -> None:
    started = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it is looked for again
    data = encode(Image.fromarray(gradient(64, 64)), "EPS")
    assert images.decode_to_size(data, 32) == "not an image" and not started.exists()
    with pytest.raises(OSError):  # as Pillow would by itself
        Image.open(io.BytesIO(data)).load()
    assert started.exists()


def test_a_progressive_jpeg_of_endless_scans_is_not_decoded() -> None:
    data = encode(Image.new("RGB", (6000, 6000), "red"), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    assert images.decode_to_size(data[:-2] + last * 1000 + data[-2:], 32) == "too many scans"
    small = encode(Image.new("RGB", (60, 60), "red"), "JPEG", progressive=True)
    last = small[small.rfind(b"\xff\xda") : -2]
    found = images.decode_to_size(small[:-2] + last * 1000 + small[-2:], 32)
    assert np.array_equal(found, images.decode_to_size(small, 32))  # which takes no time


def test_damaged_exif_leaves_the_image_as_it_is_stored() -> None:
    pixels = gradient(32, 32)
    for damaged in (b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12", b"Exif\0\0nonsense"):
        assert np.array_equal(images.decode_to_size(encode(Image.fromarray(pixels), "PNG", exif=damaged), 32), pixels)


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "LA"])
def test_large_images_are_converted_by_bands_to_the_same_pixels(mode: str, monkeypatch) -> None:
    rng = np.random.default_rng(3)
    shape = {"I;16": (100, 70), "RGBA": (100, 70, 4), "LA": (100, 70, 2)}[mode]
    values = rng.integers(0, 256, shape).astype(np.uint16 if mode == "I;16" else np.uint8)
    data = encode(Image.fromarray(values * 255 if mode == "I;16" else values), "PNG")
    whole = np.asarray(images.decode(data))
    monkeypatch.setattr(images, "BAND", 70 * 7)  # 7 rows; the last band has 2
    assert np.array_equal(np.asarray(images.decode(data)), whole)
    if mode == "I;16":
        assert np.array_equal(whole[:, :, 0], values * 255 // 256)
    else:
        alpha, colour = values[:, :, -1].astype(int), values[:, :, 0].astype(int)
        assert np.abs(whole[:, :, 0] - (colour * alpha + 255 * (255 - alpha)) / 255).max() < 1.01


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (encode(Image.new("L", (30, 20)), "PNG"), images.Limits(pixels=600), None),
        (encode(Image.new("L", (30, 20)), "PNG"), images.Limits(pixels=599), "too many pixels"),
        (np.zeros((20, 30), np.uint8), images.Limits(pixels=599), "too many pixels"),
        (np.zeros((0, 30, 3), np.uint8), images.Limits(), "empty"),
    ],
)
def test_limits_are_those_that_are_given(data, limits: images.Limits, reason: str | None) -> None:
    assert images.decode_batch([data], 16, limits=limits)[1] == [reason]
