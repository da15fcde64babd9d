"""Outlier sets to publish, built by `curate build` from small pictures, and reading back what was published."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hub_server import HubServer
from huggingface_hub import snapshot_download
from pictures import pictures, write_parquet

from curate.build import build
from curate.config import BuildConfig

LABELS = ("n01 chair", "n02 table | <b>desk</b>", "n03 cup")


def make_built(root: Path) -> Path:
    """A set of 90 rows in three shards, of 120 labelled pictures under a licence that lets them be passed on."""
    ident = pictures(120, seed=1)
    write_parquet(root / "photos" / "train.parquet", ident[:80], [i % 2 for i in range(80)], ["a", "b"])
    write_parquet(root / "photos" / "test.parquet", ident[80:], [i % 2 for i in range(40)], ["a", "b"])
    write_parquet(root / "things.parquet", pictures(120, seed=2), [i % 3 for i in range(120)], LABELS)
    return build(config(root, root / "sets" / "mini.h5", source_license="cc-by-4.0")).out


def config(root: Path, out: Path, **changes: object) -> BuildConfig:
    values: dict[str, object] = {"source": (str(root / "things.parquet"),), "id": str(root / "photos"), "size": 90}
    values |= {"calibration_images": 40, "shard_rows": 40, "batch_rows": 64, "workers": 1, "out": out}
    return BuildConfig(**values | changes)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def download(target: Path, repo: str = "owner/things", **settings: str) -> dict[str, bytes]:
    """What the real client reads back, without what the Hub puts into every repository."""
    snapshot_download(repo, repo_type="dataset", local_dir=target, **settings)
    return {name: data for name, data in contents(target).items() if name[0] != "."}


def hub_environment(server: HubServer, home: Path, **more: str) -> dict[str, str]:
    """The environment of a process that uses this Hub."""
    kept = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    hub = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return kept | hub | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"} | more


def python(code: str, environment: dict[str, str], *arguments: object) -> str:
    """What a program prints that runs in a process of its own, for what the client reads when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
