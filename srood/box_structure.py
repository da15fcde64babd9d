"""What the boxes of JPEG 2000 and AVIF, and JPEG 2000 codestreams, have their readers do before a pixel is read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# boxes of boxes, with what comes before these
INSIDE = {
    **dict.fromkeys((b"jp2h", b"res ", b"moov", b"trak", b"mdia", b"minf", b"stbl", b"iprp", b"ipco"), 0),
    b"meta": 4,
}
TABLES = (
    b"iinf",
    b"iloc",
    b"iref",
    b"ipma",
    b"grpl",
    b"stsc",
    b"stco",
    b"co64",
)  # libavif searches them for each entry
DEPTH = 8

CODESTREAM = b"\xff\x4f\xff\x51"
SIZE = struct.Struct(">8I H")  # of the image and its offset, of a tile and the offset of the first, and components
COD, COC, TILE_PART, TILE_DATA, END = 0x52, 0x53, 0x90, 0x93, 0xD9
TILE_COST, COMPONENT_COST, BLOCK_COST = 2, 0.3, 0.1  # parts: OpenJPEG keeps some 8,000, 1,100 and 500 bytes for each


def costs(data: bytes) -> Iterator[float]:
    """What the boxes of a JPEG 2000 or AVIF file cost to read, in parts (see `image_structure`), box by box."""
    tables = 0
    for name, start, end in _boxes(data, 0, len(data), DEPTH):
        yield 1
        if name in TABLES:
            tables += end - start
            yield (tables / 1000) ** 2
        elif name == b"jp2c":
            yield from codestream_costs(data, start)
            return


def pixels(data: bytes) -> int:
    """Width times height that the codestream of a JPEG 2000 file has, which its boxes may not say; else 0."""
    for count, (name, start, _) in enumerate(_boxes(data, 0, len(data), 0)):
        if name == b"jp2c":
            return codestream_pixels(data, start)
        if count > 10_000:
            break
    return 0


def codestream_pixels(data: bytes, at: int = 0) -> int:
    """Width times height of the JPEG 2000 codestream there; 0 if there is none."""
    size = _size(data, at)
    return 0 if size is None else max(0, size[0] - size[2]) * max(0, size[1] - size[3])


def codestream_costs(data: bytes, at: int = 0) -> Iterator[float]:
    """What the tiles, precincts and code-blocks of the JPEG 2000 codestream there cost, header by header."""
    size = _size(data, at)
    if size is None:
        return
    right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top, components = size
    tiles = -((tiles_left - right) // tile_width) * -((tiles_top - bottom) // tile_height)
    yield max(0, tiles) * (TILE_COST + COMPONENT_COST * components)
    tile = max(0, min(tile_width, right - left)), max(0, min(tile_height, bottom - top))
    at += 2
    part, in_tiles = 0, False
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != END:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == TILE_DATA:  # then the next part of a tile
            after = part + int.from_bytes(data[part + 6 : part + 10], "big")
            if after <= at:  # the last, or damaged
                return
            at = after
            continue
        if marker == TILE_PART:
            part, in_tiles = at, True
        yield 0.1
        if marker in (COD, COC):
            skipped = 5 if marker == COD else 1 + (1 if components < 257 else 2)
            coding = data[at + 4 + skipped : at + 2 + length]
            precincts = data[at + 4 + (0 if marker == COD else skipped - 1)] & 1 if coding else 0
            blocks = _blocks(*tile, coding, bool(precincts)) * (components if marker == COD else 1)
            yield blocks * BLOCK_COST * (1 if in_tiles else 1 + tiles / 10)  # those of one tile are kept at a time
        at += 2 + max(2, length)


def _blocks(width: int, height: int, coding: bytes, precincts: bool) -> int:
    """Precincts and code-blocks of one component of a tile, by the parameters of a COD or COC segment."""
    if len(coding) < 5:
        return 0
    levels, block_width, block_height = min(32, coding[0]), coding[1] + 2, coding[2] + 2  # exponents of 2, the last two
    found = 0
    for resolution in range(levels + 1):
        sizes = coding[5 + resolution] if precincts and 5 + resolution < len(coding) else 0xFF
        across, down = sizes & 15, sizes >> 4  # exponents of 2 too
        shrunk = levels - resolution
        found += _covers(width, shrunk + across) * _covers(height, shrunk + down)
        half = int(resolution > 0)  # then there are three bands of half the sides
        shrunk += half
        across, down = max(0, min(block_width, across - half)), max(0, min(block_height, down - half))
        found += (3 if half else 1) * _covers(width, shrunk + across) * _covers(height, shrunk + down)
    return found


def _covers(length: int, exponent: int) -> int:
    return -(-length >> exponent)


def _size(data: bytes, at: int) -> tuple[int, ...] | None:
    """The fields of the SIZ segment, where a codestream begins there whose tiles have a size."""
    if not data.startswith(CODESTREAM, at) or at + 8 + SIZE.size > len(data):
        return None
    size = SIZE.unpack_from(data, at + 8)
    return size if size[4] and size[5] else None


def _boxes(data: bytes, at: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box, and of those inside; ends where one is damaged."""
    while at + 8 <= end:
        length, name, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        after = end if length == 0 else at + length
        if after < start:
            return
        yield name, start, min(after, end)
        if name in INSIDE and depth:
            yield from _boxes(data, start + INSIDE[name], min(after, end), depth - 1)
        at = after
