"""The pairs of an audit as one self-contained page: both pictures side by side, closest first."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from curate.audit import Audit
from srood import datasets
from srood.files import write_text

MOST = 200  # pairs shown
LARGEST = 128  # pixels; larger pictures are reduced

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ground: #fff; --card: #f4f5f7; --ink: #1b1f24; --faint: #59636e; --line: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0f1216; --card: #191e24; --ink: #e6eaef; --faint: #9aa5b1; --line: #323a44 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.35rem; margin: 0 0 .5rem }
p { margin: .3rem 0; max-width: 46rem }
table { border-collapse: collapse; margin: .8rem 0 }
td { padding: .15rem 1rem .15rem 0; vertical-align: top }
td:first-child { color: var(--faint); white-space: nowrap }
ol { list-style: none; margin: 1rem 0; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)) }
li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem }
figure { margin: 0; min-width: 0 }
img { width: 100%; height: auto; aspect-ratio: 1; image-rendering: pixelated; display: block; border-radius: .25rem }
figcaption { font-size: .8rem; color: var(--faint); margin-top: .25rem }
.how { margin: 0 0 .5rem; font-variant-numeric: tabular-nums }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ shown }}</p>
<table>
{%- for name, value in facts %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{%- endfor %}
</table>
<ol>
{%- for pair in pairs %}
<li><p class="how"><b>{{ "%.4f"|format(pair.similarity) }}</b> {{ pair.kind }}</p>
<div class="two">
{%- for side in pair.sides %}
<figure><img src="data:image/png;base64,{{ side.png }}" width="{{ side.width }}" height="{{ side.height }}" \
alt="{{ side.key }}"><figcaption>row {{ side.row }}{% if side.label %}, {{ side.label }}{% endif %}<br>{{ side.key }}\
</figcaption></figure>
{%- endfor %}
</div></li>
{%- endfor %}
</ol>
</body>
</html>
"""


def page(found: Audit) -> str:
    """The page as HTML text; it refers to nothing outside itself."""
    chosen = found.pairs.closest(MOST)
    pairs = [
        {
            "similarity": float(found.pairs.similarity[at]),
            "kind": str(found.pairs.kind[at]),
            "sides": [_side(found.a, int(found.pairs.place_a[at])), _side(found.b, int(found.pairs.place_b[at]))],
        }
        for at in chosen
    ]
    every = len(found.pairs)
    shown = (
        "No two images are judged the same picture."
        if not every
        else f"{every:,} pairs are judged the same picture; "
        + (f"the {MOST} closest are shown, closest first." if every > MOST else "all are shown, closest first.")
    )
    where = f"within {found.a.spec}" if found.within else f"of {found.a.spec} in {found.b.spec}"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_PAGE)
    return template.render(title=f"Copies {where}", shown=shown, facts=facts(found), pairs=pairs)


def write_page(found: Audit, path: Path) -> None:
    """Write the page; never half a file."""
    write_text(path, page(found))


def facts(found: Audit) -> list[tuple[str, str]]:
    """What an audit found, a name and a value for each line."""
    summary = found.summary(0)
    lines = [("images of A", _images(found.a))]
    if not found.within:
        lines.append(("images of B", _images(found.b)))
    share = summary["flagged"] / len(found.a.images)
    lines.append(("flagged images of A", f"{summary['flagged']:,} ({share:.2%})"))
    pairs = summary["pairs"]
    lines.append(("pairs", f"{pairs['all']:,}: {pairs['exact']:,} exact, {pairs['near']:,} near"))
    if found.within:
        groups = summary["groups"]
        lines.append(
            ("groups", f"{groups['number']:,}, the largest of {groups['largest']:,}; {groups['repeats']:,} repeats")
        )
    recall = float(np.mean(list(found.threshold.recall.values())))
    lines.append(("threshold", f"similarity {found.threshold.similarity}; finds {recall:.1%} of synthetic copies"))
    return lines


def _images(images: datasets.Images) -> str:
    skipped = sum(images.skipped.values())
    left_out = f", {skipped:,} more cannot be used" if skipped else ""
    return f"{len(images.images):,} of {images.spec}{left_out}"


def _side(images: datasets.Images, place: int) -> dict[str, object]:
    picture = Image.fromarray(images.images[place])
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST))
    data = io.BytesIO()
    picture.save(data, "PNG")
    label = int(images.labels[place])
    return {
        "png": base64.b64encode(data.getvalue()).decode(),
        "width": picture.width,
        "height": picture.height,
        "row": int(images.rows[place]),
        "key": images.keys[place],
        "label": images.class_names[label] if 0 <= label < len(images.class_names) else "",
    }
