"""Malformed and odd images of every kind, each with what must come of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from torture import image_files, mutations
from torture.image_files import encoded, picture, png_chunk

SIDE = 32  # to which images are brought; pictures of this size keep their pixels
IMAGE = "an image"
CORRUPT, NO_IMAGE = "truncated or corrupt", "not an image"
TURNED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.transpose(1, 0, 2),
    6: lambda shown: np.rot90(shown, 1),
    7: lambda shown: shown[::-1, ::-1].transpose(1, 0, 2),
    8: lambda shown: np.rot90(shown, -1),
}  # EXIF orientation -> how an image is stored that shows this


@dataclass(frozen=True)
class Kind:
    """One file.

    Attributes:
        fault: row of the table
        name: of the file
        data: its content
        allowed: what may come of it: `IMAGE`, or reasons
        pixels: (SIDE, SIDE, 3) uint8 that it must have, if it is an image and they are known
        off: grey levels by which these may differ at most
    """

    fault: str
    name: str
    data: bytes
    allowed: tuple[str, ...]
    pixels: np.ndarray | None = None
    off: int = 0


def kinds(seed: int, flips: int, quick: bool) -> Iterator[Kind]:
    """All of them; `flips` files a format with bits flipped, and of the largest images a quick part only."""
    yield from cut_short(5 if quick else 1)
    yield from flipped(seed, flips)
    yield from no_images()
    yield from odd_sizes(quick)
    yield from claims(quick)
    yield from good(picture(SIDE, SIDE))
    yield from many_parts(quick)
    yield from endless_parts(quick)


def cut_short(step: int) -> Iterator[Kind]:
    """Each format cut at each `step` per cent of its length: refused, or nothing is lost."""
    for name, data in image_files.by_format(SIDE, SIDE).items():
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
        for percent in range(0, 100, step):
            cut = data[: len(data) * percent // 100]
            allowed = (CORRUPT, NO_IMAGE, IMAGE) if percent else ("empty",)
            yield Kind(f"{name} cut short", f"cut{percent}{image_files.EXTENSIONS[name]}", cut, allowed, pixels)


def flipped(seed: int, count: int) -> Iterator[Kind]:
    """Files with one bit flipped, or a few."""
    allowed = (IMAGE, CORRUPT, NO_IMAGE, "too many pixels", "extreme aspect ratio", "unsupported mode")
    for number, name in enumerate(image_files.EXTENSIONS):
        rng = np.random.default_rng([seed, number])
        for repetition in range(count):
            data = encoded(image_files.blocks(rng), name)  # each another: copies are compared with one another
            spoiled = mutations.flip(data, 1 + repetition % 4, rng)
            file = f"flip{repetition}{image_files.EXTENSIONS[name]}"
            yield Kind(f"{name}, 1 to 4 bits flipped", file, spoiled, allowed)


def no_images() -> Iterator[Kind]:
    """What is something else, under the name of an image."""
    for name, data in image_files.by_format().items():
        magic = bytes(12) + data[12:]
        yield Kind("beginning overwritten", f"magic{image_files.EXTENSIONS[name]}", magic, (NO_IMAGE,))
    eps = encoded(Image.fromarray(picture()), "EPS")
    texts = {
        "HTML": b"<!doctype html><html><body>404</body></html>",
        "shell script": b"#!/bin/sh\nrm -rf /\n",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "PDF": encoded(picture(), "PDF"),
        "EPS": eps,
    }
    for what, data in texts.items():
        yield Kind(f"{what} named .jpg", f"text-{what[:4]}.jpg", data, (NO_IMAGE,))
    yield Kind("no bytes", "none.png", b"", ("empty",))
    yield Kind("zeros", "zeros.png", bytes(1000), (NO_IMAGE,))


def odd_sizes(quick: bool) -> Iterator[Kind]:
    """From one pixel to as many as are decoded."""
    for side in ("PNG", "JPEG"):
        extension = image_files.EXTENSIONS[side]
        for width, height in ((65_500, 1), (1, 65_500)):
            data = encoded(Image.new("RGB", (width, height), "red"), side)
            yield Kind("65,500 x 1 pixels", f"line{width}{extension}", data, ("extreme aspect ratio",))
        red = np.full((SIDE, SIDE, 3), (254, 0, 0), np.uint8)
        one = encoded(Image.new("RGB", (1, 1), (254, 0, 0)), side)
        yield Kind("1 x 1 pixel", f"one{extension}", one, (IMAGE,), red, 1)
    large = 1_000 if quick else 9_400  # 9,400 squared is just below the limit
    plain = {"L": 200, "RGBA": (0, 0, 0, 0), "I;16": 0x7FFF, "1": 1, "CMYK": (255, 0, 0, 0)}
    for mode, colour in plain.items():
        image, shown = Image.new(mode, (large, large), colour), _shown(mode)
        kind, options = ("TIFF", {"compression": "tiff_adobe_deflate"}) if mode == "CMYK" else ("PNG", {})
        data = encoded(image, kind, **options)
        file = f"large-{mode.replace(';', '')}{image_files.EXTENSIONS[kind]}"
        yield Kind("few bytes of as many pixels as are decoded", file, data, (IMAGE,), shown)


def _shown(mode: str) -> np.ndarray:
    colour = {"L": 200, "RGBA": 255, "I;16": 127, "1": 255}.get(mode)
    rgb = (0, 255, 255) if colour is None else (colour,) * 3
    return np.full((SIDE, SIDE, 3), rgb, np.uint8)


def claims(quick: bool) -> Iterator[Kind]:
    """Headers that claim sizes far beyond the data, and files that keep their word."""
    side = 50_000
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    gif = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0)
    gif += b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\x00;"
    canvas = b"\x10\x00\x00\x00" + 2 * (16_383).to_bytes(3, "little")
    frames = b"VP8X" + struct.pack("<I", 10) + canvas + image_files.animation("WebP", 2, 8)[12:]
    webp = b"RIFF" + struct.pack("<I", 4 + len(frames)) + b"WEBP" + frames
    tiff = bytearray(encoded(picture(), "TIFF"))
    bmp = bytearray(encoded(picture(), "BMP"))
    struct.pack_into("<ii", bmp, 18, side, side)
    jpeg = bytearray(encoded(picture(), "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 65_500, 65_500)
    _set_tiff_size(tiff, side)
    refused = ("too many pixels",)
    files = {"PNG": png, "GIF": gif, "TIFF": bytes(tiff), "BMP": bytes(bmp), "JPEG": bytes(jpeg)}
    for name, data in files.items():
        yield Kind(f"{name} that claims 50,000 x 50,000 pixels or more", f"claim.{name.lower()}", data, refused)
    yield Kind("WebP that claims 16,384 x 16,384 pixels", "claim.webp", webp, (*refused, CORRUPT))
    large = Image.new("1", (12_000, 9_000))
    coded: dict[str, dict[str, object]] = {"PNG": {}, "TIFF": {"compression": "group4"}}
    for name, options in (coded if quick else {**coded, "GIF": {}, "WebP": {"method": 0}}).items():
        data = encoded(large, name, **options)
        yield Kind("few bytes of 108 million pixels", f"bomb{image_files.EXTENSIONS[name]}", data, refused)
    scans = encoded(Image.new("RGB", (3_000, 3_000), "red"), "JPEG", progressive=True)
    last = scans[scans.rfind(b"\xff\xda") : -2]
    yield Kind("JPEG of 10,000 scans", "scans.jpg", scans[:-2] + 10_000 * last + scans[-2:], ("too many scans",))


def _set_tiff_size(data: bytearray, side: int) -> None:
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, entry)[0] in (256, 257):  # width, height
            struct.pack_into("<HII", data, entry + 2, 4, 1, side)


def good(pixels: np.ndarray) -> Iterator[Kind]:
    """Images that must be read right."""
    image = Image.fromarray(pixels)
    for name, data in image_files.by_format(SIDE, SIDE).items():
        off = {"JPEG": 90, "WebP": 90, "GIF": 90}.get(name, 0)  # of single pixels; of sharp edges these lose much
        wrong = ".png" if name != "PNG" else ".jpg"
        yield Kind("extension of another format", f"wrong-{name}{wrong}", data, (IMAGE,), pixels, off)
    exif = Image.Exif()
    for orientation, stored in TURNED.items():
        exif[0x0112] = orientation
        data = encoded(np.ascontiguousarray(stored(pixels)), "PNG", exif=exif)
        yield Kind("turned by EXIF, all 8 ways", f"exif{orientation}.png", data, (IMAGE,), pixels)
    for number, damaged in enumerate((b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff\x12\x01", b"nonsense")):
        data = encoded(image, "PNG", exif=b"Exif\0\0" + damaged)
        yield Kind("damaged EXIF", f"exif-bad{number}.png", data, (IMAGE,), pixels)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, icc in enumerate((profile, profile[:100], b"nonsense" * 50)):
        fault = "ICC profile" if number == 0 else "damaged ICC profile"
        yield Kind(fault, f"icc{number}.png", encoded(image, "PNG", icc_profile=icc), (IMAGE,), pixels)
    grey = pixels[:, :, 0]
    shown = np.repeat(grey[:, :, None], 3, axis=2)
    sixteen = encoded(Image.fromarray(grey.astype(np.uint16) * 256 + 99), "PNG")
    yield Kind("16-bit grey", "grey16.png", sixteen, (IMAGE,), shown)
    rows = b"".join(b"\0" + (row.astype(np.uint16) * 256 + 99).astype(">u2").tobytes() for row in pixels)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0))
    end = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    yield Kind("16-bit colour", "colour16.png", b"\x89PNG\r\n\x1a\n" + header + end, (IMAGE,), pixels)
    ink = np.zeros((SIDE, SIDE, 4), np.uint8)
    ink[:, :, 0] = 255
    cyan = np.full((SIDE, SIDE, 3), (0, 255, 255), np.uint8)
    yield Kind("CMYK", "cmyk.jpg", encoded(Image.fromarray(ink, "CMYK"), "JPEG"), (IMAGE,), cyan, 3)
    two = Image.new("P", (SIDE, SIDE), 0)
    two.putpalette([10, 20, 30, 40, 50, 60])
    two.paste(1, (SIDE // 2, 0, SIDE, SIDE))
    half = np.full((SIDE, SIDE, 3), 255, np.uint8)
    half[:, SIDE // 2 :] = (40, 50, 60)
    yield Kind("palette with a transparent colour", "palette.png", encoded(two, "PNG", transparency=0), (IMAGE,), half)
    baseline, progressive = (encoded(image, "JPEG", progressive=way) for way in (False, True))
    with Image.open(io.BytesIO(baseline)) as opened:
        expected = np.asarray(opened)  # the same coefficients in another order
    yield Kind("progressive JPEG", "progressive.jpg", progressive, (IMAGE,), expected)
    for name, off in (("PNG", 0), ("WebP", 0), ("GIF", 90)):
        data = image_files.animation(name, 3, SIDE)
        yield Kind("animation: its first frame", f"moving{image_files.EXTENSIONS[name]}", data, (IMAGE,), pixels, off)
    floats = encoded(Image.fromarray(np.ones((SIDE, SIDE), np.float32)), "TIFF")
    yield Kind("floating-point TIFF", "float.tif", floats, ("unsupported mode",))


def many_parts(quick: bool) -> Iterator[Kind]:
    """Files with more in them than an image."""
    count = 100 if quick else 3_000
    for name in ("GIF", "TIFF"):
        data, off = image_files.animation(name, count, SIDE), 90 if name == "GIF" else 0
        file = f"many{image_files.EXTENSIONS[name]}"
        yield Kind("thousands of frames", file, data, (IMAGE,), picture(SIDE, SIDE), off)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * (4 << 20 if quick else 200 << 20), zip=True)
    yield Kind(
        "PNG with a text of 200 MB in few bytes", "text.png", encoded(picture(), "PNG", pnginfo=text), (CORRUPT,)
    )


def endless_parts(quick: bool) -> Iterator[Kind]:
    """Files of a few pixels, and of parts that would take minutes or gigabytes to read."""
    count = 200_000 if quick else 3_000_000
    jpeg, png, gif, webp = (encoded(picture(), name) for name in ("JPEG", "PNG", "GIF", "WebP"))
    exif, comment = b"\xff\xe1\0\x0aExif\0\0hi", b"\xff\xfe\0\x02"
    palette = 13 + (6 << (gif[10] & 7))
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + 4 * b"\0" + b"\x2f\0\0\x27\0\0" + webp[12:] + count * b"none\0\0\0\0"
    files = {
        "JPEG with Exif data": ("exif.jpg", jpeg[:2] + count * exif + jpeg[2:]),
        "JPEG with comments": ("comments.jpg", jpeg[:2] + count * comment + jpeg[2:]),
        "PNG with texts": ("texts.png", png[:33] + count * png_chunk(b"tEXt", b"a\0") + png[33:]),
        "PNG with chunks without data": ("empty.png", png[:33] + count * png_chunk(b"IDAT", b"") + png[33:]),
        "GIF with comments": ("comments.gif", gif[:palette] + count * b"!\xfe\2hi\0" + gif[palette:]),
        "WebP with chunks": ("chunks.webp", b"RIFF" + struct.pack("<I", len(chunks)) + chunks),
        "PPM with comments": ("comments.ppm", b"P2 32 32 255 " + count * b"#\n0 "),
    }
    for what, (name, data) in files.items():
        yield Kind(f"{what} without number", f"endless-{name}", data, ("too many segments",))
    image = Image.new("RGB", (6_000, 6_000), "red")
    sequential = encoded(image, "JPEG")
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(4)  # of one component
    scans = sequential[: sequential.rindex(b"\xff\xda")] + 10_000 * scan + b"\xff\xd9"
    yield Kind("sequential JPEG of 10,000 scans", "sequential.jpg", scans, ("too many scans",))
    side = 20_000
    tile = zlib.compress(bytes(1_000))
    values = [(256, 32), (257, 32), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side)]
    values += [(324, 10 + 12 * 10 + 4), (325, len(tile))]
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values)
    tiff = b"II*\0" + struct.pack("<IH", 8, len(values)) + tags + bytes(4) + tile
    yield Kind("TIFF of 32 x 32 pixels in a tile of 20,000 x 20,000", "tile.tif", tiff, ("too many pixels",))
    codestream = bytearray(encoded(Image.new("L", (255, 257)), "JPEG2000", no_jp2=True))
    struct.pack_into(">II", codestream, 24, 1, 1)
    yield Kind("JPEG 2000 of 65,535 tiles", "tiles.jp2", bytes(codestream), ("too many segments",))
