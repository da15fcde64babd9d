"""Files of few pixels that would take Pillow minutes or gigabytes; those that only look like them are read."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, features

from srood import box_structure, image_structure, images, pillow, tiff_structure

PICTURE = np.indices((32, 32, 3)).sum(axis=0).astype(np.uint8) * 3
COUNT = 120_000  # parts: more than are allowed
SEGMENTS = "too many segments"
GREY = [(256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]  # TIFF tags of 32 x 32 pixels


def encode(kind: str, picture: np.ndarray | Image.Image = PICTURE, **options) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, content: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def jpeg(inserted: bytes) -> bytes:
    data = encode("JPEG")
    return data[:2] + inserted + data[2:]


def png(inserted: bytes) -> bytes:
    data = encode("PNG")
    return data[:33] + inserted + data[33:]  # after the header


def gif(inserted: bytes) -> bytes:
    data = encode("GIF")
    at = 13 + (6 << (data[10] & 7))
    return data[:at] + inserted + data[at:]


def webp(inserted: bytes) -> bytes:
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + 2 * b"\x1f\0\0" + encode("WEBP")[12:] + inserted
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def tiff(tags: Sequence[tuple[int, int, int, int]], rest: bytes = b"") -> bytes:
    """Little-endian; `rest` begins at 14 bytes, and 12 for each tag."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + rest


def with_data(tags: Sequence[tuple[int, int, int]], rest: bytes) -> bytes:
    """A grey TIFF whose further tags (tag, type, count) all have their values in `rest`."""
    at = 14 + 12 * (len(GREY) + len(tags))
    return tiff(GREY + [(*tag, at) for tag in tags], rest)


def sequential_scans(count: int, frame: int = 0xC0) -> bytes:
    """A JPEG of 6,000 x 6,000 pixels with scans of one component each."""
    data = encode("JPEG", Image.new("RGB", (6_000, 6_000)))
    head = bytearray(data[: data.rindex(b"\xff\xda")])
    head[head.index(b"\xff\xc0") + 1] = frame
    return bytes(head) + count * (segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(4)) + b"\xff\xd9"


def tags_of_the_same_data() -> bytes:
    """As Exif data: 3,000 tags of 24,000 bytes, that are the same."""
    return tiff([(30_000 + tag, 5, 3_000, 36_100) for tag in range(3_000)], bytes(24_100))


def exif_directory() -> bytes:
    values = struct.pack("<HHHII", 1, 700, 5, COUNT, 14 + 12 * 9 + 18) + bytes(4) + COUNT * struct.pack("<II", 1, 2)
    strip = [(273, 4, 1, 200), (278, 3, 1, 32), (279, 4, 1, 1_024)]
    return tiff([*GREY, *strip, (34665, 4, 1, 14 + 12 * 9)], values)


def no_number(header: bytes) -> bytes:
    return header + bytes(32 * 32)


SPOILED = zlib.compress(bytes(1 << 20), 9)[:-4] + b"sums"
REFUSED = {
    "JPEG: Exif": lambda: jpeg(COUNT // 4 * segment(0xE1, b"Exif\0\0" + bytes(100))),
    "JPEG: large Exif": lambda: jpeg(300 * segment(0xE1, b"Exif\0\0" + bytes(60_000))),
    "JPEG: colour profile": lambda: jpeg(COUNT * segment(0xE2, b"ICC_PROFILE\0\1\1")),
    "JPEG: comments": lambda: jpeg(COUNT * segment(0xFE)),
    "JPEG: quantization tables": lambda: jpeg(500 * segment(0xDB, 1_000 * bytes(65))),
    "JPEG: components": lambda: jpeg(10 * segment(0xC0, b"\x08\0\x20\0\x20\x03" + 21_000 * b"\1\x11\0")),
    "JPEG: Photoshop": lambda: jpeg(30 * segment(0xED, b"Photoshop 3.0\0" + 5_000 * (b"8BIM" + bytes(8)))),
    "JPEG: fill": lambda: jpeg(10 * COUNT * b"\xff"),
    "JPEG: no segments": lambda: jpeg(10 * COUNT * b"\0"),
    "JPEG: multi-picture": lambda: jpeg(segment(0xE2, b"MPF\0" + tags_of_the_same_data())),
    "PNG: texts": lambda: png(COUNT * chunk(b"tEXt", b"a\0")),
    "PNG: spoiled texts": lambda: png(1_200 * chunk(b"zTXt", b"a\0\0" + SPOILED)),
    "PNG: profiles": lambda: png(1_200 * chunk(b"iCCP", b"a\0\0" + SPOILED)),
    "PNG: private": lambda: png(COUNT * chunk(b"prVt")),
    "PNG: no data": lambda: png(COUNT * chunk(b"IDAT")),
    "PNG: Exif": lambda: png(chunk(b"eXIf", tags_of_the_same_data()) + chunk(b"eXIf", exif_of_orientations())),
    "GIF: comments": lambda: gif(COUNT * b"!\xfe\2hi\0"),
    "GIF: a comment": lambda: gif(b"!\xfe" + 10 * COUNT * b"\2hi" + b"\0"),
    "GIF: after NETSCAPE": lambda: gif(b"!\xff\x0bNETSCAPE2.0\0,!!!" + bytes(41) + COUNT * b"!\xfe\2hi\0"),
    "GIF: no blocks": lambda: gif(10 * COUNT * b"\0"),
    "WebP: chunks": lambda: webp(COUNT * b"none\0\0\0\0"),
    "TIFF: a rational of many": lambda: with_data([(282, 5, COUNT)], COUNT * struct.pack("<II", 1, 2)),
    "TIFF: strips": lambda: with_data([(278, 4, 1), (273, 4, COUNT)], COUNT * struct.pack("<I", 1)),
    "TIFF: the same data": lambda: with_data([(tag, 7, 1 << 20) for tag in range(30_000, 30_200)], bytes(1 << 20)),
    "TIFF: Exif": exif_directory,
    "BigTIFF: tags": lambda: b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, COUNT) + COUNT * bytes(20),
    "PPM: comments": lambda: no_number(b"P2 32 32 255 " + 5_000 * b"#\n0 "),
    "PPM: blanks": lambda: no_number(b"P5 32 32 " + 10 * COUNT * b" " + b"255\n"),
    "PPM: comments in a number": lambda: no_number(b"P5 32 3#" + 10 * COUNT * b"-" + b"\n2 255\n"),
}


def exif_of_orientations() -> bytes:
    return tiff([(0x0112, 3, 10 * COUNT, 26)], 10 * COUNT * b"\1\0")


@pytest.mark.parametrize("kind", REFUSED)
def test_parts_without_number_are_not_read(kind: str, monkeypatch) -> None:
    data = REFUSED[kind]()
    monkeypatch.setattr(pillow, "open_image", lambda data: pytest.fail("it was opened"))
    assert images.decode_to_size(data, 32) == SEGMENTS


def test_a_walk_ends_where_there_are_too_many(monkeypatch) -> None:
    walked = []

    def walk(data: bytes):
        for _ in range(10 * COUNT):
            walked.append(1)
            yield 1

    monkeypatch.setitem(image_structure.WALKS, b"\x89P", walk)
    assert images.decode_to_size(png(bytes(20_000)), 32) == SEGMENTS
    assert len(walked) == image_structure.PARTS + 1


@pytest.mark.parametrize("frame", [0xC0, 0xC1, 0xC3, 0xC9], ids=["baseline", "extended", "lossless", "arithmetic"])
def test_scans_count_in_jpegs_of_any_coding(frame: int) -> None:
    assert images.decode_to_size(sequential_scans(60, frame), 32) == "too many scans"  # 2.2 billion pixels


def test_as_many_scans_as_are_allowed() -> None:
    data = encode("JPEG")
    at = data.index(b"\xff\xda")
    for count, refused in ((20, False), (21, True)):
        many = data[:at] + count * data[at:-2] + data[-2:]
        assert image_structure.too_many_scans(many, 1_024, 1_024) == refused


@pytest.mark.parametrize("where", ["thumbnail", "after the image", "profile"])
def test_scans_of_other_images_in_a_jpeg_do_not_count(where: str) -> None:
    inner = 30 * segment(0xDA, b"\1\1\0\0\x3f\0")
    data = encode("JPEG")
    if where == "after the image":
        data += inner  # as in what telephones write: a film, or images of other exposures
    else:
        start = b"Exif\0\0II*\0\x08\0\0\0\0\0" + bytes(4) if where == "thumbnail" else b"ICC_PROFILE\0\1\1"
        data = jpeg(segment(0xE1 if where == "thumbnail" else 0xE2, start + inner))
    limits = images.Limits(pixels=1_024)  # so that 20 scans are allowed
    assert np.array_equal(images.decode_to_size(data, 32, limits=limits), images.decode_to_size(encode("JPEG"), 32))
    last = data.index(b"\xff\xda", data.index(b"\xff\xc4"))  # the scan of this image, 21 times
    end = data.index(b"\xff\xd9", last)
    many = data[:end] + 20 * data[last:end] + data[end:]
    assert images.decode_to_size(many, 32, limits=limits) == "too many scans"


GOOD = {
    "JPEG of 4 MB of profile": lambda: jpeg(
        b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 64]) + bytes(65_000)) for part in range(1, 65))
    ),
    "JPEG of 30 MB of XMP": lambda: jpeg(480 * segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))),
    "JPEG of two Exif segments": lambda: jpeg(
        segment(0xE1, b"Exif\0\0" + tiff([(0x010E, 2, 70_000, 26)], bytes(60_000)))
        + segment(0xE1, b"Exif\0\0" + bytes(10_100))
    ),
    "PNG of data in chunks of 512 bytes": lambda: png(chunk(b"prVt", bytes(512)) * 60_000),
    "GIF with XMP": lambda: gif(b"!\xff\x0bXMP DataXMP" + 20_000 * (bytes([60]) + bytes([60]) * 60) + b"\0"),
    "TIFF of a large private tag": lambda: encode("TIFF", tiffinfo={37724: bytes(5 << 20)}),
    "PPM with comments": lambda: b"P3 # by\n# hand\n32 32\n255\n# red\n" + 1_024 * b"255 0 0\n" + 9_000 * b" ",
}


@pytest.mark.parametrize("kind", GOOD)
def test_large_metadata_are_no_reason(kind: str) -> None:
    assert isinstance(images.decode_to_size(GOOD[kind](), 32), np.ndarray)


@pytest.mark.parametrize("cut", range(0, 100, 3))
def test_what_is_cut_short_is_left_to_pillow(cut: int) -> None:
    for kind in REFUSED:
        if kind not in ("TIFF: Exif", "JPEG: multi-picture", "GIF: after NETSCAPE"):
            continue
        data = REFUSED[kind]()
        image_structure.refusal(data[: len(data) * cut // 100_000], 1_024)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "PPM", "WEBP"):
        data = encode(kind)
        assert image_structure.refusal(data[: len(data) * cut // 100], 1_024) is None


# ---- sizes that are not the image's ---------------------------------------------------------------------------------


def tiled(side: int) -> bytes:
    tags = [*GREY[:3], (259, 3, 1, 8), GREY[4], (277, 3, 1, 1), (322, 4, 1, side), (323, 4, 1, side)]
    rows = zlib.compressobj(1)
    tile = b"".join(rows.compress(bytes(side)) for _ in range(side)) + rows.flush()
    return tiff([*tags, (324, 4, 1, 14 + 120), (325, 4, 1, len(tile))], tile)


def test_the_pixels_of_a_tile_count() -> None:
    assert images.decode_to_size(tiled(64), 32).shape == (32, 32, 3)
    assert images.decode_to_size(tiled(64), 32, limits=images.Limits(pixels=1_024)).shape == (32, 32, 3)
    data = tiled(64).replace(struct.pack("<HHII", 323, 4, 1, 64), struct.pack("<HHII", 323, 4, 1, 20_000_000))
    assert images.decode_to_size(data, 32) == "too many pixels"
    assert tiff_structure.tile_pixels(data) == 64 * 20_000_000


def test_a_refused_tile_takes_no_memory(tmp_path) -> None:
    (tmp_path / "tile.tif").write_bytes(tiled(5_000))  # 25 MB
    words = (
        "import resource, sys; from srood import images; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    )
    words += "\nprint(images.decode_to_size(open(sys.argv[1], 'rb').read(), 32, limits=images.Limits(1_024)))"
    words += "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    found = subprocess.run(
        [sys.executable, "-c", words, tmp_path / "tile.tif"], capture_output=True, text=True, check=True
    )
    reason, grown = found.stdout.split("\n")[:2]
    unit = 1 if sys.platform == "darwin" else 1 << 10
    assert reason == "too many pixels" and int(grown) * unit < 10 << 20


@pytest.fixture
def jpeg2000() -> bytearray:
    """The codestream of 255 x 257 grey pixels."""
    if not features.check_codec("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    return bytearray(encode("JPEG2000", Image.new("L", (255, 257)), no_jp2=True))


def test_tiles_of_one_pixel_are_too_many(jpeg2000: bytearray) -> None:
    assert images.decode_to_size(bytes(jpeg2000), 32).shape == (32, 32, 3)
    struct.pack_into(">II", jpeg2000, 24, 1, 1)  # of which OpenJPEG keeps 640 MB
    assert images.decode_to_size(bytes(jpeg2000), 32) == SEGMENTS
    boxes = encode("JPEG2000", Image.new("L", (255, 257)))
    start = boxes.index(b"jp2c") - 4
    hidden = boxes[:start] + struct.pack(">I4s", 8, b"free") + struct.pack(">I4s", 0, b"jp2c") + jpeg2000
    assert images.decode_to_size(hidden, 32) == SEGMENTS


def test_precincts_of_one_pixel_are_too_many() -> None:
    image = Image.new("L", (2_000, 2_000))
    options = {"no_jp2": True, "num_resolutions": 1, "precinct_size": (64, 64)}
    data = bytearray(encode("JPEG2000", image, **options))
    assert sum(box_structure.codestream_costs(bytes(data))) < 1_000
    at = data.index(b"\xff\x52")
    data[at + 14] = 0  # exponents of 2
    assert sum(box_structure.codestream_costs(bytes(data))) > 4_000_000 * box_structure.BLOCK_COST
    assert images.decode_to_size(bytes(data), 32) == SEGMENTS


def test_a_codestream_larger_than_its_boxes_say_is_refused() -> None:
    data = bytearray(encode("JPEG2000"))
    at = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">II", data, at + 8, 20_000, 20_000)
    struct.pack_into(">II", data, at + 24, 20_000, 20_000)
    assert images.decode_to_size(bytes(data), 32) == "too many pixels"


def test_boxes_and_tables_of_items_are_too_many() -> None:
    box = struct.pack(">I4s", 8, b"free")
    start = struct.pack(">I4s4sI4s", 20, b"ftyp", b"avif", 0, b"mif1")
    assert image_structure.refusal(start + COUNT * box, 1_024) == SEGMENTS
    for size, reason in (
        (50_000, None),
        (400_000, SEGMENTS),
    ):  # of 1,000 tiles; of 70,000, each searched for the others
        table = struct.pack(">I4s", 8 + size, b"iloc") + bytes(size)
        meta = struct.pack(">I4sI", 12 + len(table), b"meta", 0) + table
        assert image_structure.refusal(start + meta, 1_024) == reason
