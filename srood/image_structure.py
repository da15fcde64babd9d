"""What an encoded image has Pillow do besides decoding, by its structure alone: parts without number in few bytes.

Pillow reads segments, chunks, blocks and tags in Python, and some of them in quadratic time or several times the
memory. They are walked here first, without decoding, and only until they are too many. Where a file is damaged, the
walk ends and the rest is left to Pillow.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from srood import box_structure, tiff_structure

SMALL = 1 << 14  # bytes; a file of fewer cannot hold enough parts of most formats to matter
PARTS = 100_000  # a part is what costs Pillow some microseconds, or some hundred bytes of memory
PART_BYTES = (
    512  # a large file may have one for every so many bytes: the pixels of a PNG come in chunks of some thousand
)
SCANS = 20  # of a JPEG of as many pixels as are allowed, of smaller ones more: each takes a pass over all pixels
SCAN_BYTES = 10  # that a scan takes at least
TILE = 1 << 24  # pixels of a tile that are allowed in any case: it may be larger than its image

TOO_MANY_SEGMENTS, TOO_MANY_PIXELS, TOO_MANY_SCANS = "too many segments", "too many pixels", "too many scans"

MARKER = re.compile(rb"\xff[^\x00\xff]")
MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # those in between are data and restarts
START, END, SCAN, QUANTIZATION, EXIF, PHOTOSHOP, MULTI_PICTURE = 0xD8, 0xD9, 0xDA, 0xDB, 0xE1, 0xED, 0xE2
FRAMES = frozenset({*range(0xC0, 0xD0), 0xDE}) - {0xC4, 0xC8, 0xCC}
BARE = frozenset({*range(0xD0, 0xDA), *range(0xF0, 0xFE), 0x01, 0xC8})  # markers that Pillow takes for all of a segment
CHUNK = struct.Struct(">I4s")
GIF_BLOCK = re.compile(rb"[!,;]")
PNM_BLANK, PNM_NUMBER = re.compile(rb"\s+|#[^\r\n]*[\r\n]?"), re.compile(rb"[^\s#]{1,11}")


def refusal(data: bytes, pixels: int) -> str | None:
    """The reason for which an encoded image must not be handed to Pillow; None where it may be.

    Args:
        data: of any format.
        pixels: width times height that are allowed.
    """
    kind = b"\0\0" if data[4:8] == b"ftyp" else data[:2]
    if (kind in WALKS and len(data) > SMALL) or kind in WALKS_OF_ANY_SIZE:
        most, parts = max(PARTS, len(data) // PART_BYTES), 0.0
        for cost in (WALKS.get(kind) or WALKS_OF_ANY_SIZE[kind])(data):
            parts += cost
            if parts > most:
                return TOO_MANY_SEGMENTS
    if kind in PIXELS and PIXELS[kind](data) > max(pixels, TILE):
        return TOO_MANY_PIXELS
    return None


def too_many_scans(data: bytes, pixels: int, most: int) -> bool:
    """Whether libjpeg would take more passes over a JPEG of `pixels` than `SCANS` over one of `most` pixels.

    That holds for progressive, sequential and lossless JPEGs alike, in Huffman or arithmetic coding: if the first scan
    has not all components, or the frame is progressive, libjpeg reads all scans before it gives the first row.
    """
    allowed = SCANS * most // max(1, pixels)
    if len(data) <= SCAN_BYTES * allowed or data.count(b"\xda") <= allowed or data.count(b"\xff\xda") <= allowed:
        return False  # the cheapest bound first
    at = 2  # now without those in thumbnails, profiles, and what comes after the image
    while (found := MARKER_IN_SCAN.search(data, at)) and data[found.end() - 1] != END:
        at = found.end()
        allowed -= data[at - 1] == SCAN
        if allowed < 0:
            return True
        if data[at - 1] not in BARE:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return False


def _jpeg(data: bytes) -> Iterator[float]:
    """Up to the first scan; what follows is read by libjpeg."""
    at, joined, exif = 2, 0, []
    while found := MARKER.search(data, at):
        yield 1 + (found.start() - at) / 8  # Pillow reads bytes between segments one by one
        at = found.end()
        marker = data[at - 1]
        if marker in BARE:
            continue
        if marker == SCAN:
            break
        start, at = at + 2, at + max(2, int.from_bytes(data[at : at + 2], "big"))
        if marker in FRAMES:
            yield (at - start) / 4  # an object for each component
        elif marker == QUANTIZATION:
            yield (at - start) / 16
        elif marker == PHOTOSHOP:
            yield data.count(b"8BIM", start, at)
        elif marker == EXIF and data.startswith(b"Exif\0\0", start):
            exif.append(data[start + 6 : at])
            joined += at - start
            yield joined / 10_000  # Pillow appends to what it has, and so copies all of it each time
        elif marker == MULTI_PICTURE and data.startswith(b"MPF\0", start):
            yield from tiff_structure.costs(data[start + 4 : at], every=True)
    yield from tiff_structure.costs(b"".join(exif))


def _png(data: bytes) -> Iterator[float]:
    at = 8
    while at + 8 <= len(data):
        length, name = CHUNK.unpack_from(data, at)
        yield 1
        if name in (b"zTXt", b"iTXt", b"iCCP"):
            yield min(length / 10, 100)  # of a kilobyte comes a megabyte at most, where Pillow stops
        elif name == b"eXIf":
            yield from tiff_structure.costs(data[at + 8 : at + 8 + length])
        elif name == b"IEND":
            return
        at += 12 + length


def _gif(data: bytes) -> Iterator[float]:
    """Up to the first frame, in Pillow's own reading of what is damaged."""
    if len(data) < 13:
        return
    at = 13 + (6 << (data[10] & 7) if data[10] & 128 else 0)
    while found := GIF_BLOCK.search(data, at):
        yield 1 + (found.start() - at) / 8
        if found[0] != b"!":
            return
        label, at = data[found.end() : found.end() + 1], found.end() + 1
        skipped = 0 if label == b"\xfe" else 2 if data.startswith(b"NETSCAPE2.0", at + 1) and label == b"\xff" else 1
        while at < len(data) and (data[at] or skipped > 0):  # these Pillow reads before it looks for the last
            at += 1 + data[at]
            skipped -= 1
            yield 1 / 8
        at += 1
    yield max(0, len(data) - at) / 8


def _riff(data: bytes) -> Iterator[float]:
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        yield 1
        if name == b"EXIF":
            yield from tiff_structure.costs(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2


def _pnm(data: bytes) -> Iterator[float]:
    if data[1:2] in b"123":  # numbers in plain text
        yield 50 * data.count(b"#")  # for each comment Pillow copies the megabyte that it is in
    at, numbers, begun = 2, 2 if data[1:2] in b"14" else 3, False
    while numbers:  # of the header, which Pillow reads byte by byte
        if begun and data[at : at + 1].isspace():
            at, numbers, begun = at + 1, numbers - 1, False
        elif blank := PNM_BLANK.match(data, at):
            yield (blank.end() - at) / 4
            at = blank.end()
        elif (number := PNM_NUMBER.match(data, at)) and len(number[0]) <= 10:
            at, begun = number.end(), True
        else:
            return


def _tiff(data: bytes) -> Iterator[float]:
    return tiff_structure.costs(data, inner=True)


Walk = Callable[[bytes], Iterator[float]]
WALKS: dict[bytes, Walk] = {
    b"\xff\xd8": _jpeg,
    b"\x89P": _png,
    b"GI": _gif,
    b"RI": _riff,
    **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"), _pnm),
}  # by the first two bytes
WALKS_OF_ANY_SIZE: dict[bytes, Walk] = {
    b"II": _tiff,
    b"MM": _tiff,
    b"\xff\x4f": box_structure.codestream_costs,
    b"\0\0": box_structure.costs,
}
PIXELS: dict[bytes, Callable[[bytes], int]] = {
    b"II": tiff_structure.tile_pixels,
    b"MM": tiff_structure.tile_pixels,
    b"\xff\x4f": box_structure.codestream_pixels,
    b"\0\0": box_structure.pixels,
}
