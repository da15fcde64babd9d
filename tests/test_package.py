"""The wheel works where there is no checkout."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the contents of a freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("srood-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_commands_find_their_files_outside_the_checkout(installed, tmp_path):
    where = subprocess.run(
        [sys.executable, "-c", "import srood; print(srood.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(installed))
    listed = run(installed, tmp_path, "curate", "sources")
    assert listed.returncode == 0, listed.stderr
    assert "tinyimages-alt" in listed.stdout and "cifar10:test" in listed.stdout
    assert run(installed, tmp_path, "train", "--version").stdout.startswith("srood ")


def test_wheel_holds_the_packaged_yaml_and_console_scripts(installed):
    for kind in ("datasets", "sources", "exclusions", "ood", "experiments"):
        packaged = {path.name for path in (installed / "srood" / "manifests" / kind).iterdir()}
        assert packaged == {path.name for path in (ROOT / "manifests" / kind).glob("*.yaml")}
    assert (installed / "srood" / "manifests" / "wordnet" / "nouns.tsv.gz").is_file()
    assert (installed / "curate" / "templates" / "report.html").is_file()
    assert (installed / "curate" / "templates" / "report.css").is_file()
    assert (installed / "train" / "publishing" / "templates" / "model_card.md").is_file()
    (entry_points,) = installed.glob("srood-*.dist-info/entry_points.txt")
    text = entry_points.read_text()
    assert "curate = curate.__main__:main" in text and "srood = train.__main__:main" in text


@pytest.mark.parametrize(
    ("package", "others"), [("srood", ("curate", "train")), ("curate", ("train",)), ("train", ("curate",))]
)
def test_the_two_commands_meet_in_files_and_not_in_code(package, others):
    """`curate` and `train` import `srood`, which imports neither, and not each other."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in others], path
