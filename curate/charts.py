"""Charts as inline SVG, coloured by the page's own CSS variables, so that they follow its light and dark colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

WIDTH = 400  # of the drawing; the page scales it, text with it
LEFT, RIGHT, TOP = 46, 14, 34
PANEL, GAP, AXIS = 62, 26, 40
BARS = 64  # at most


def histograms(
    panels: Mapping[str, np.ndarray],
    edges: np.ndarray,
    threshold: float | None,
    title: str,
    axis: str,
    colours: Sequence[str] = (),
) -> Markup:
    """One panel a histogram, one below the other on a common axis, each to its own height.

    Args:
        panels: name -> counts (B,) over `edges` (B + 1,), evenly spaced; empty ones say so.
        threshold: drawn as a line through all panels; None for none.
        colours: of the panels, names of CSS variables.

    Returns:
        an SVG element.
    """
    total = np.sum([np.asarray(counts) for counts in panels.values()], axis=0)
    first, last, step = _window(total, edges, threshold)
    beyond = max(0, last - len(total))  # bins that the last group lacks
    edges = np.concatenate([edges, edges[-1] + (edges[1] - edges[0]) * np.arange(1, beyond + 1)])
    low, high = float(edges[first]), float(edges[last])
    height = TOP + len(panels) * (PANEL + GAP) + AXIS

    def across(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = []
    for number, (name, counts) in enumerate(panels.items()):
        top = TOP + number * (PANEL + GAP) + 8
        grouped = np.pad(counts, (0, beyond))[first:last].reshape(-1, step).sum(axis=1)
        rows, most = int(np.sum(counts)), int(grouped.max())
        parts.append(_text(LEFT, top - 3, f"{name}: {rows:,}", "name"))
        colour = colours[number] if number < len(colours) else "--kept"
        for i, count in enumerate(grouped):
            if not count:
                continue
            left, right = across(edges[first + i * step]), across(edges[first + (i + 1) * step])
            tall = max(1.0, PANEL * count / most)  # a single row among thousands must still be seen
            says = f"{edges[first + i * step]:.3f} to {edges[first + (i + 1) * step]:.3f}: {count:,}"
            parts.append(
                f'<rect x="{left:.1f}" y="{top + PANEL - tall:.1f}" width="{max(0.6, right - left - 0.6):.1f}" '
                f'height="{tall:.1f}" style="fill:var({escape(colour)})"><title>{escape(says)}</title></rect>'
            )
        if most:
            parts.append(_text(LEFT - 5, top + 9, f"{most:,}", "tick end"))
        parts.append(_line(LEFT, top + PANEL, WIDTH - RIGHT, top + PANEL, "base"))
    bottom = TOP + len(panels) * (PANEL + GAP) - GAP + 8
    for value in _ticks(low, high):
        parts.append(_line(across(value), bottom, across(value), bottom + 4, "base"))
        parts.append(_text(across(value), bottom + 17, _number(value), "tick middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, axis, "tick middle"))
    if threshold is not None and low <= threshold <= high:
        parts += _threshold(across(threshold), 4, bottom, threshold)
    says = "; ".join(f"{name} {int(np.sum(counts)):,} rows" for name, counts in panels.items())
    return _svg(title, says, height, parts)


def curves(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    threshold: float | None,
    title: str,
    axis: str,
    colours: Sequence[str] = (),
) -> Markup:
    """Shares (0 to 1) over `x`, one line a series with its name above it, and the threshold."""
    height, bottom, top = 250, 210, 46
    low, high = min(x), max(x)

    def across(value: float) -> float:
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def up(share: float) -> float:
        return bottom - share * (bottom - top)

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line(LEFT, up(share), WIDTH - RIGHT, up(share), "base" if share == 0 else "grid"))
        parts.append(_text(LEFT - 5, up(share) + 4, f"{share:.0%}", "tick end"))
    for value in _ticks(low, high):
        parts.append(_text(across(value), bottom + 17, _number(value), "tick middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, axis, "tick middle"))
    beside = LEFT
    for number, (name, values) in enumerate(series.items()):
        colour = escape(colours[number] if number < len(colours) else "--kept")
        points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x, values, strict=True))
        dash = ' stroke-dasharray="6 3"' if number % 2 else ""  # told apart without colour too
        parts.append(f'<polyline points="{points}" class="curve" style="stroke:var({colour})"{dash}/>')
        parts.append(
            f'<line x1="{beside}" y1="12" x2="{beside + 20}" y2="12" class="curve" style="stroke:var({colour})"{dash}/>'
        )
        parts.append(_text(beside + 25, 16, name, "name"))
        beside += 45 + round(6.2 * len(name))
    if threshold is not None and low <= threshold <= high:
        parts += _threshold(across(threshold), top - 14, bottom, threshold)
    says = "; ".join(
        f"{name}: {values[0]:.0%} at {x[0]:g}, {values[-1]:.0%} at {x[-1]:g}" for name, values in series.items()
    )
    return _svg(title, says, height, parts)


def _window(total: np.ndarray, edges: np.ndarray, threshold: float | None) -> tuple[int, int, int]:
    """(first, last, step): the bins to draw in groups of `step`, all that is filled and the threshold; maybe beyond."""
    filled = np.flatnonzero(total)
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, len(total))
    if threshold is not None and edges[0] <= threshold <= edges[-1]:
        near = int(np.clip(np.searchsorted(edges, threshold), 0, len(total)))
        first, last = min(first, max(0, near - 2)), max(last, min(len(total), near + 2))
    step = max(1, -(-(last - first) // BARS))
    return first, first + -(-(last - first) // step) * step, step


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    span = (high - low) or 1.0
    step = 10 ** np.floor(np.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    return [float(value) for value in np.arange(np.ceil(low / step - 1e-9) * step, high + step * 1e-6, step)]


def _number(value: float) -> str:
    return f"{round(value, 6) + 0.0:g}"  # no minus before a zero


def _threshold(x: float, top: float, bottom: float, value: float) -> list[str]:
    anchor = "end" if x > WIDTH / 2 else "start"
    shift = -4 if anchor == "end" else 4
    return [
        _line(x, top, x, bottom, "threshold"),
        _text(x + shift, top + 9, f"threshold {value:.4g}", f"mark {anchor}"),
    ]


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _svg(title: str, says: str, height: float, parts: Sequence[str]) -> Markup:
    label = escape(f"{title}. {says}")
    return Markup(  # nosec B704  # numbers, and text that was escaped
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{label}">'
        f"{''.join(str(part) for part in parts)}</svg>"
    )
