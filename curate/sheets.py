"""Contact sheets: many small pictures in one PNG, which the page shows tile by tile."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

COLUMNS = 12
BUDGET = 2_100_000  # bytes of PNG on a page; a third more as text
BYTES = 2.7  # that one pixel of a photograph takes
LEAST = 24  # pixels a side, whatever the budget says


@dataclass(frozen=True)
class Tile:
    """One row to show: its picture uint8 (H, W, 3) or None, key, label, and what it is shown beside."""

    image: np.ndarray | None
    key: str
    label: str = ""
    note: str = ""
    partner: np.ndarray | None = None
    partner_key: str = ""


@dataclass
class Place:
    """Where a picture stands in its sprite, as CSS percentages."""

    x: str
    y: str


@dataclass
class Sheet:
    """Tiles and their sprite; `places` and `partner_places` are as long as `tiles`."""

    name: str
    tiles: Sequence[Tile]
    places: list[Place | None] = field(default_factory=list)
    partner_places: list[Place | None] = field(default_factory=list)
    uri: str = ""
    columns: int = 1
    rows: int = 1

    @property
    def paired(self) -> bool:
        """Whether rows are shown beside something."""
        return any(tile.partner is not None for tile in self.tiles)

    @property
    def pictured(self) -> bool:
        """Whether there is any picture."""
        return any(tile.image is not None for tile in self.tiles)

    def entries(self) -> list[tuple[Tile, Place | None, Place | None]]:
        """Each tile with its places."""
        return list(zip(self.tiles, self.places, self.partner_places, strict=True))


class Sheets:
    """The sheets of a page. Sprites are made last, when it is known how many pictures share the budget."""

    def __init__(self) -> None:
        self.all: list[Sheet] = []

    def add(self, tiles: Sequence[Tile]) -> Sheet:
        """A sheet of its own for these tiles."""
        sheet = Sheet(f"s{len(self.all)}", tiles)
        self.all.append(sheet)
        return sheet

    def draw(self) -> None:
        """Make the sprites."""
        pictures = [_pictures(sheet) for sheet in self.all]
        count = sum(map(len, pictures))
        largest = max((max(p.shape[:2]) for sheet in pictures for p in sheet), default=LEAST)
        affordable = (BUDGET / BYTES / max(1, count)) ** 0.5
        side = max(LEAST, largest // math.ceil(largest / affordable))  # a whole part of it: sharper than any other
        for sheet, shown in zip(self.all, pictures, strict=True):
            _draw(sheet, shown, side)


def _pictures(sheet: Sheet) -> list[np.ndarray]:
    both = [picture for tile in sheet.tiles for picture in (tile.image, tile.partner)]
    return [picture for picture in both if picture is not None]


def _draw(sheet: Sheet, pictures: Sequence[np.ndarray], side: int) -> None:
    columns = max(1, min(COLUMNS, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    places = [_place(number, columns, rows) for number in range(len(pictures))]
    following = iter(places)
    sheet.places, sheet.partner_places = [], []
    for tile in sheet.tiles:
        sheet.places.append(None if tile.image is None else next(following))
        sheet.partner_places.append(None if tile.partner is None else next(following))
    sheet.columns, sheet.rows = columns, rows
    if pictures:
        sheet.uri = "data:image/png;base64," + base64.b64encode(sprite(pictures, columns, side)).decode()


def sprite(pictures: Sequence[np.ndarray], columns: int, side: int) -> bytes:
    """One PNG of pictures, uint8 (H, W, 3), row by row, each brought to `side` pixels; black where none is left."""
    canvas = Image.new("RGB", (columns * side, max(1, -(-len(pictures) // columns)) * side))
    for number, picture in enumerate(pictures):
        tile_image = Image.fromarray(np.ascontiguousarray(picture))
        if tile_image.size != (side, side):
            tile_image = tile_image.resize((side, side), Image.Resampling.LANCZOS)
        canvas.paste(tile_image, (number % columns * side, number // columns * side))
    stream = io.BytesIO()
    canvas.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def drawn_rows(count: int, shown: int) -> np.ndarray:
    """Row numbers to show of a set of `count` rows: at most `shown`, drawn at random, always the same; ascending."""
    rng = np.random.default_rng(np.random.SeedSequence([0x5EE]))
    return np.sort(rng.permutation(count)[:shown])


def _place(number: int, columns: int, rows: int) -> Place:
    x, y = number % columns, number // columns
    return Place(f"{100 * x / max(1, columns - 1):.4g}%", f"{100 * y / max(1, rows - 1):.4g}%")
