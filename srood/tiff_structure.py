"""What the directories of a TIFF, or of Exif data, have Pillow and libtiff do before a pixel is read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFIXES = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")  # as Pillow takes them; the last two, BigTIFF
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # bytes, by type
TEXTS, RATIONALS = (1, 2, 7), (5, 10)  # types that Pillow leaves in one piece, and those of which it makes objects
OFFSETS = (273, 324)  # of strips and tiles: Pillow makes an object of each
TILE_WIDTH, TILE_LENGTH = 322, 323
EXIF, GPS, INTEROP = 34665, 34853, 40965  # directories that Pillow reads with a TIFF
BASELINE = 1000  # Pillow asks for tags below and for those three; others it leaves as bytes

Entry = tuple[int, int, int, bytes]  # tag, type, count, and the value or where it lies


def costs(data: bytes, every: bool = False, inner: bool = False) -> Iterator[float]:
    """What the tags of the first directory cost Pillow to read, in parts (see `image_structure`), tag by tag.

    Args:
        data: a TIFF file, or Exif data without the leading ``Exif``.
        every: Pillow unpacks each tag, rather than those it looks for.
        inner: the directories of Exif, GPS and interoperability are read too.
    """
    layout = _layout(data)
    if layout is None:
        return
    order, big, first = layout
    directories = [(first, every)]
    for at, unpacked in directories:  # grows below
        for tag, kind, count, value in _entries(data, at, order, big):
            yield 1
            size = count * SIZES.get(kind, 0)
            if size > len(value) and _offset(value, order) + size > len(data):
                continue  # Pillow passes over it
            yield size / 1000  # the data are copied, and may be those of other tags once more
            if kind not in TEXTS and (unpacked or tag < BASELINE or tag in (EXIF, GPS, INTEROP)):
                yield count if kind in RATIONALS or tag in OFFSETS else count / 8
            if inner and tag in (EXIF, GPS, INTEROP) and len(directories) < 10:
                directories.append((_offset(value, order), True))


def tile_pixels(data: bytes) -> int:
    """Width times length of a tile of the first image; 0 where it has none. libtiff holds one in memory."""
    layout = _layout(data)
    if layout is None:
        return 0
    order, big, first = layout
    sides = {TILE_WIDTH: 0, TILE_LENGTH: 0}
    for number, (tag, kind, count, value) in enumerate(_entries(data, first, order, big)):
        if number > 1 << 16:
            break
        if tag in sides and count and kind in SIZES:
            if count * SIZES[kind] > len(value):  # libtiff takes the first of several
                at = _offset(value, order)
                value = data[at : at + SIZES[kind]]
            value = value[: SIZES[kind]]
            sides[tag] = max(sides[tag], int.from_bytes(value, "little" if order == "<" else "big"))
    return sides[TILE_WIDTH] * sides[TILE_LENGTH]


def _layout(data: bytes) -> tuple[str, bool, int] | None:
    """Byte order, whether it is a BigTIFF, and where the first directory lies."""
    if not data.startswith(PREFIXES):
        return None
    order, big = "<" if data[:1] == b"I" else ">", 43 in data[2:4]
    try:
        return order, big, struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    except struct.error:
        return None


def _entries(data: bytes, at: int, order: str, big: bool) -> Iterator[Entry]:
    head, entry = struct.Struct(order + ("Q" if big else "H")), struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    if at + head.size > len(data):
        return
    (count,) = head.unpack_from(data, at)
    at += head.size
    for place in range(at, min(at + count * entry.size, len(data) - entry.size + 1), entry.size):
        yield entry.unpack_from(data, place)


def _offset(value: bytes, order: str) -> int:
    return int.from_bytes(value, "little" if order == "<" else "big")
