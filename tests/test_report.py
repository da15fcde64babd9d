import base64
import html
import io
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pictures import pictures, write_parquet
from PIL import Image
from typer.testing import CliRunner

from curate import charts, cli, prose
from curate.build import build
from curate.config import BuildConfig
from curate.report import render, write_report
from curate.sheets import Sheets, Tile
from srood import outliers
from srood.errors import InputError

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
EVIL = "<script>alert(1)</script>.png"
VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Every element with its attributes, the elements around it, and the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == [], "elements that are never closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus folder with planted leaks, a duplicate, a broken file, and names that are markup."""
    root = tmp_path_factory.mktemp("world")
    ident, corpus = pictures(80, seed=1), pictures(120, seed=2)
    write_parquet(root / "id" / "train.parquet", ident[:60], [i % 2 for i in range(60)], ["<b>air</b>", "sea"])
    write_parquet(root / "id" / "test.parquet", ident[60:], [i % 2 for i in range(20)], ["<b>air</b>", "sea"])
    corpus[:4] = ident[60:64]
    for row, image in enumerate(corpus):
        folder = root / "corpus" / ("<script>alert(1)<" if row == 50 else "thing")
        folder.mkdir(parents=True, exist_ok=True)
        name = "script>.png" if row == 50 else f"{row:03d} \"{row % 7}'&.png"
        Image.fromarray(image).save(folder / name)
    (root / "corpus" / "thing" / "broken.png").write_bytes(b"no image")
    Image.fromarray(corpus[90]).save(root / "corpus" / "thing" / "zz same.png")
    return root, ident


@pytest.fixture(scope="module")
def built(world, tmp_path_factory):
    root, _ = world
    out = tmp_path_factory.mktemp("built") / "mini.h5"
    build(
        BuildConfig(
            source=(str(root / "corpus"),), id=str(root / "id"), size=200, calibration_images=20, out=out,
            batch_rows=64, id_recall=0.1, exclude_labels="none",
        )
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def text(built):
    return render(outliers.OutlierSet.open(built))


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_is_one_file_and_asks_for_nothing(text, page):
    for tag, attributes, _ in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action", "data", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    assert not re.search(r"url\((?!data:image/png;base64,)", text)
    assert "@import" not in text
    assert "default-src 'none'" in text
    targets = {attributes["id"] for _, attributes, _ in page.elements if "id" in attributes}
    assert {a["href"][1:] for a in page.of("a")} <= targets
    assert len(text) < 3_000_000


def test_names_of_strangers_are_text(text, page):
    assert "<script" not in text and "<b>air" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in text
    assert any(EVIL in said for said in page.text)
    assert any("<b>air</b>" in said for said in page.text)


def test_pictures_have_words_and_headings_are_in_order(page):
    shown = [attributes for _, attributes, _ in page.elements if attributes.get("role") == "img"]
    assert len(shown) > 100
    assert all(attributes.get("aria-label", "").strip() for attributes in shown)
    assert all(attributes.get("alt") for attributes in page.of("img"))
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for _, attributes, _ in page.elements:
        if attributes.get("role") == "region":  # what may scroll can be scrolled with the keyboard
            assert attributes["tabindex"] == "0" and attributes["aria-label"]
    assert page.of("html") == [{"lang": "en"}] and len(page.of("main")) == 1
    assert page.elements[[tag for tag, _, _ in page.elements].index("a")][1] == {"class": "skip", "href": "#main"}


def test_tiles_show_the_planted_pixels(text, page, world):
    """The sprite of each sheet, cut where the style says, is the picture that the label names."""
    _, ident = world
    sprites = dict(re.findall(r"\.(s\d+) \.pic\{background-image:url\(data:image/png;base64,([^)]+)\)", text))
    sizes = {s: (int(a), int(b)) for s, a, b in re.findall(r"\.(s\d+) \.pic\{[^}]*size:(\d+)% (\d+)%", text)}
    sheet, checked = None, 0
    for tag, attributes, _ in page.elements:
        if tag == "ul" and "sheet" in (attributes.get("class") or ""):
            sheet = attributes["class"].split()[1]
        label = attributes.get("aria-label") or ""
        found = re.search(r"beside it: test\.parquet#(\d+)$", label)
        if attributes.get("role") == "img" and found and int(found[1]) < 4:
            x, y = (float(v) for v in re.fullmatch(r"--x:([\d.]+)%;--y:([\d.]+)%", attributes["style"]).groups())
            sprite = np.asarray(Image.open(io.BytesIO(base64.b64decode(sprites[sheet]))))
            columns, rows = (n // 100 for n in sizes[sheet])
            column, row = round(x / 100 * (columns - 1)), round(y / 100 * (rows - 1))
            cell = sprite[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            assert np.array_equal(cell, ident[60 + int(found[1])])
            checked += 1
    assert checked >= 4


def test_what_the_manifest_says_is_on_the_page(text, page, built):
    manifest, words = outliers.read_manifest(built), " ".join(" ".join(page.text).split())
    for entry in manifest["stages"]:
        assert entry["stage"] in words
        for reason, count in entry["dropped"].items():
            assert f"{reason} {count:,}" in words and f"{reason}: {count:,}" in words
    leaks = next(entry for entry in manifest["stages"] if entry["stage"] == "leaks")
    assert leaks["dropped"]["exact copy"] == 4
    dropped = sum(leaks["dropped"].values())
    assert f"the images of train.parquet (60 images) and test.parquet (20 images). {dropped} (exact copy 4" in words
    assert f"None of the {manifest['rows']:,} rows kept is a copy by this check" in words
    for entry in manifest["leak_certificate"]["protected"] + manifest["sources"]:
        assert entry["name"] in words and entry["fingerprint"][:16] in words
    for entry in [*manifest["shards"], manifest["evidence"]]:
        assert entry["sha256"] in words
    for name, version in manifest["versions"].items():
        assert name in words and version in words
    assert "kept row nearest to <b>air</b>" in {(a.get("aria-label") or "").split(":")[0] for a in page.of("span")}
    threshold = manifest["leak_certificate"]["threshold"]["similarity"]
    assert words.count(f"threshold {threshold:.4g}") == 2  # the histogram and the curve


def test_the_command_builds_the_same_set(built):
    manifest = outliers.read_manifest(built)
    command, notes = prose.command(manifest, "mini.h5")
    assert command.startswith("curate build ") and command.endswith("--out mini.h5")
    assert "--source corpus" in command and "--size 200" in command and "--id-recall 0.1" in command
    assert "calibration_images=20" in " ".join(notes)
    other = {**manifest, "config": {**manifest["config"], "source": ["a b", "c"], "embedder": "checkpoint"}}
    command, notes = prose.command(other, "x.h5")
    assert "--source 'a b' --source c" in command and "--embedder checkpoint:PATH" in command
    assert "PATH is the embedder" in notes[0]
    timm = {"config": {**manifest["config"], "embedder": "timm"}, "id_filter": {"embedder": "timm:resnet18.a1_in1k"}}
    assert "--embedder timm:resnet18.a1_in1k --" in prose.command({**manifest, **timm}, "x.h5")[0]
    assert "--quality default" in command and "--max-upscale" not in command
    limits = {**manifest["config"], "quality": {"max_aspect": 20, "max_upscale": 4.0}}
    assert "--max-pixels" not in command and "--max-bytes" not in command  # the defaults
    other = {**manifest, "config": {**manifest["config"], "max_pixels": 500_000, "max_bytes": 1_000_000}}
    assert "--max-bytes 1000000B --max-pixels 500000" in prose.command(other, "x.h5")[0]
    assert "--quality none --max-upscale 4.0" in prose.command({**manifest, "config": limits}, "x.h5")[0]


def test_the_printed_command_is_one_that_the_command_line_takes(built, world, tmp_path, monkeypatch):
    """Run where the inputs lie, it finds the same recipe: the same bytes would be written."""
    root, _ = world
    manifest = outliers.read_manifest(built)
    words = shlex.split(prose.command(manifest, str(tmp_path / "mini.h5"))[0])[1:]
    parsed = {}
    monkeypatch.setattr("curate.build.build", lambda config, **_: parsed.setdefault("config", config) and exit(0))
    monkeypatch.chdir(root)
    CliRunner().invoke(cli.app, words)
    python_only = {"calibration_images": 20, "batch_rows": 64}
    assert replace(parsed["config"], **python_only).recorded() == manifest["config"]


def test_the_printed_command_counts_the_rows_to_leave_out_from_where_they_were(recorded_set, monkeypatch):
    """From 1 in a file whose rows are by default counted from 0."""
    words = shlex.split(prose.command(outliers.read_manifest(recorded_set), "mini.h5")[0])[1:]
    parsed = {}
    monkeypatch.setattr("curate.build.build", lambda config, **_: parsed.setdefault("config", config) and exit(0))
    CliRunner().invoke(cli.app, words)
    assert (parsed["config"].exclude_indices, parsed["config"].exclude_indices_base) == (Path("rows.txt"), 1)


def test_the_command_names_the_licence_of_a_folder_that_is_called_like_a_named_set(built):
    source = {"name": "textures", "license": "cc0-1.0", "origin": "a local folder"}
    command = shlex.split(prose.command({**outliers.read_manifest(built), "sources": [source]}, "x.h5")[0])
    assert command[-4:] == ["--source-license", "cc0-1.0", "--out", "x.h5"]


@pytest.mark.parametrize(
    ("licenses", "words"),
    [
        ({"pictures.parquet": "CC BY 4.0"}, ["--source-license", "CC BY 4.0"]),
        ({"pictures.parquet": "unknown"}, []),
        ({"textures:train": "of its own", "owner/name:train": "mit"}, []),  # a named set, and one of the Hub
        ({"textures:train": "of its own", "a.zip": "unknown", "b.zip": "cc0-1.0"}, ["--source-license", "cc0-1.0"]),
    ],
)
def test_the_command_names_a_licence_that_was_given(built, licenses, words):
    sources = [{"name": name, "license": license, "origin": "x"} for name, license in licenses.items()]
    command = shlex.split(prose.command({**outliers.read_manifest(built), "sources": sources}, "x.h5")[0])
    assert command[-2 - len(words) :] == [*words, "--out", "x.h5"] and command.count("--source-license") == bool(words)


def test_contamination_in_words():
    by_labels = {"measured_by": "labels", "corpus": 0.12, "kept": 0.03, "kept_interval": [0.02, 0.045]}
    lines, _ = prose.contamination({"contamination": by_labels})
    assert lines == [
        "By their corpus labels, 3.00% (95 % interval 2.00% to 4.50%) of the labelled rows kept show an ID class, "
        "against 12.00% of the corpus."
    ]
    estimated = {"measured_by": None, "kept": None, "estimated": {"kept": {"point": 0.1, "low": 0.05, "high": 0.2}}}
    lines, _ = prose.contamination({"contamination": estimated})
    assert lines[1] == "Estimated from ID-ness, without labels: 10.0% (95 % interval 5.00% to 20.00%) of the rows kept."
    assert prose.headlines({"rows": 5, "contamination": estimated})[-1][0] == "10.0%"
    lines, _ = prose.contamination({"contamination": {"measured_by": None, "kept": None, "estimated": None}})
    assert "too little" in lines[1]


def test_the_same_set_gives_the_same_page_and_nothing_half_written(built, text, tmp_path):
    out = write_report(built, tmp_path / "new" / "report.html")
    assert out.read_text() == text
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match=r"--out .*mini.h5: must end in .html"):
        write_report(built, built)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .*: cannot be written"):
        write_report(built, tmp_path / "file" / "report.html")


def test_a_set_without_evidence_has_a_page_too(built, tmp_path):
    for file in built.parent.iterdir():
        if "evidence" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    without = render(outliers.OutlierSet.open(tmp_path / "mini.h5"))
    page = Page(without)
    assert "No evidence file lies beside this set" in without
    assert any((a.get("aria-label") or "").startswith("kept row") for a in page.of("span"))


def test_the_command_line(built, tmp_path):
    runner = CliRunner()
    done = runner.invoke(cli.app, ["report", str(built), "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 0 and "needs no other file" in done.output
    gone = runner.invoke(cli.app, ["report", str(tmp_path / "gone.h5"), "--out", str(tmp_path / "g.html")])
    assert isinstance(gone.exception, InputError) and "no such outlier set" in str(gone.exception)
    assert not (tmp_path / "g.html").exists()


def test_histograms_draw_every_row_once_on_a_common_axis():
    edges = np.linspace(-1, 1, 2001)
    rng = np.random.default_rng(0)
    values = {"kept": rng.normal(0.2, 0.1, 500).clip(-1, 1), "dropped": rng.normal(0.8, 0.05, 9).clip(-1, 1)}
    counts = {name: np.histogram(numbers, edges)[0] for name, numbers in values.items()}
    drawing = str(charts.histograms(counts, edges, 0.7, "title", "axis"))
    bars = re.findall(r"<title>(-?[\d.]+) to (-?[\d.]+): ([\d,]+)</title>", drawing)
    assert sum(int(count.replace(",", "")) for _, _, count in bars) == 509
    low, high, count = bars[10]
    inside = (values["kept"] >= float(low)) & (values["kept"] < float(high))
    assert abs(int(inside.sum()) - int(count)) <= 1  # the labels are rounded to a thousandth
    assert "threshold 0.7" in drawing
    assert "threshold" not in str(charts.histograms(counts, edges, None, "title", "axis")).replace("class", "")
    assert "<b>" not in str(charts.histograms({"<b>": counts["kept"]}, edges, None, "<b>", "<b>"))


@pytest.mark.parametrize("where", [[0], [1999], [0, 1999], [1000, 1003]])
def test_histograms_at_the_ends_of_the_axis(where):
    edges = np.linspace(-1, 1, 2001)
    counts = np.zeros(2000, np.int64)
    counts[where] = 7
    drawing = str(charts.histograms({"x": counts}, edges, 1.0, "t", "a"))
    assert sum(map(int, re.findall(r": (\d+)</title>", drawing))) == 7 * len(where)


def test_sheets_share_the_budget():
    rng = np.random.default_rng(0)
    tiles = [Tile(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), f"k{i}") for i in range(700)]
    sheets = Sheets()
    sheet = sheets.add(tiles)
    sheets.draw()
    sprite = Image.open(io.BytesIO(base64.b64decode(sheet.uri.partition(",")[2])))
    assert sprite.size == (12 * 32, -(-700 // 12) * 32)
    assert len(sheet.uri) < 4 / 3 * 700 * 32 * 32 * 3.1  # noise: no photograph takes more
    few = Sheets()
    sheet = few.add([*tiles[:3], Tile(None, "lost")])
    few.draw()
    sprite = Image.open(io.BytesIO(base64.b64decode(sheet.uri.partition(",")[2])))
    assert sprite.size == (3 * 64, 64) and sheet.places[3] is None
    assert np.array_equal(np.asarray(sprite)[:, 64:128], tiles[1].image)


# ---- in a browser ---------------------------------------------------------------------------------------------------


def browse(page, folder, width: int, dark: bool, *more: str) -> str:
    """What headless Chromium prints of a page on disk."""
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    )
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [
        CHROMIUM,
        *flags,
        scheme,
        f"--user-data-dir={folder}",
        f"--window-size={width},800",
        *more,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


MEASURE = """<script>
const root = document.documentElement, out = {};
out.scroll = root.scrollWidth; out.inner = window.innerWidth;
out.wide = [...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.wide') && !e.closest('svg')
  && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.tagName + '.' + e.className);
out.page = getComputedStyle(document.body).backgroundColor;
const pic = document.querySelector('.pic').getBoundingClientRect();
out.pic = [pic.width, pic.height];
out.labels = [...document.querySelectorAll('img:not([alt]), [role=img]:not([aria-label])')].length;
out.alert = window.alerted || 0;
parent.postMessage(JSON.stringify(out), '*');
</script></body>"""
FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><body style="margin:0">
<script>onmessage = event => document.documentElement.setAttribute('data-measured', event.data)</script>
<iframe src="copy.html" style="width:WIDTHpx;height:800px;border:0"></iframe>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: install Debian's chromium, or set CHROMIUM to its path")
def test_in_chromium_it_fits_a_phone_and_follows_the_colour_scheme(text, tmp_path):
    # the policy forbids scripts, so what is measured is a copy without it; an alert would count itself
    copy = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", text)
    copy = copy.replace("<head>", "<head><script>window.alert = () => { window.alerted = 1; }</script>")
    (tmp_path / "copy.html").write_text(copy.replace("</body>", MEASURE))
    measured = {}
    for width, dark in ((360, False), (360, True), (1280, False)):
        page = tmp_path / f"frame{width}.html"  # a window is at least 500 pixels wide, a frame is not
        page.write_text(FRAME.replace("WIDTH", str(width)))
        dom = browse(page, tmp_path / f"profile{width}{dark}", 1400, dark, "--dump-dom", "--virtual-time-budget=5000")
        measured[width, dark] = json.loads(html.unescape(re.search(r'data-measured="([^"]*)"', dom)[1]))
    for (width, _), found in measured.items():
        assert found["inner"] == width
        assert found["scroll"] <= width, found["wide"]
        assert found["wide"] == [] and found["labels"] == 0 and found["alert"] == 0
        assert found["pic"][0] == pytest.approx(found["pic"][1]) and found["pic"][0] > 55
    light, dark = (sum(map(int, re.findall(r"\d+", measured[360, dark]["page"]))) for dark in (False, True))
    assert light > 3 * 230 and dark < 3 * 40


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: install Debian's chromium, or set CHROMIUM to its path")
def test_in_chromium_pictures_are_drawn_from_the_file_system(built, tmp_path):
    """A screenshot of the page itself, policy and all, has the colours of the contact sheet in it."""
    page = write_report(built, tmp_path / "report.html")
    browse(page, tmp_path / "profile", 1280, False, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1280,2400")
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))
    images = outliers.OutlierSet.open(built)
    rng = np.random.default_rng(np.random.SeedSequence([0x5EE]))
    first = images.read_images(np.sort(rng.permutation(images.num_rows)[:48])[:1])[0]
    packed = [array.reshape(-1, 3).astype(np.int64) @ [65536, 256, 1] for array in (first, shot)]
    assert np.isin(*packed).mean() > 0.95
