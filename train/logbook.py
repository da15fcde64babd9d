"""What a run writes down while it trains: metrics.jsonl, TensorBoard, and sums over an interval of steps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from srood.files import write_text
from train import runs

TENSORBOARD_FOLDER = "tensorboard"


class Interval:
    """Sums over the steps since the last line of the log."""

    def __init__(self, note: str = "", before: dict[str, Any] | None = None) -> None:
        before = before or {}  # what `state` gave before the run was interrupted
        self.started = time.monotonic() - before.get("seconds", 0.0)
        self.steps, self.images = before.get("steps", 0), before.get("images", 0)
        self.sums: dict[str, float] = dict(before.get("sums", {}))
        self.last_note = note

    def state(self) -> dict[str, Any]:
        """For the checkpoint: the sums so far."""
        seconds = time.monotonic() - self.started
        return {"steps": self.steps, "images": self.images, "sums": self.sums, "seconds": seconds}

    def add(self, numbers: dict[str, float], images: int) -> None:
        """Count one step of `images` images, ID and outliers together."""
        self.steps += 1
        self.images += images
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, Any]:
        """For the log: means over the steps, and images a second."""
        seconds = time.monotonic() - self.started
        return {
            **{name: value / self.steps for name, value in self.sums.items()},
            "images_per_second": round(self.images / max(seconds, 1e-9), 1),
            "seconds": round(seconds, 3),
            "steps": self.steps,
        }

    def note(self) -> str:
        """For a person: the same in a line; that of the interval before for the first steps."""
        if not self.steps or (self.last_note and self.steps < 10):
            return self.last_note
        m = self.means()
        terms = [f"{name.replace('_', ' ')} {m[name]:.3f}" for name in self.sums if name not in ("loss", "id_accuracy")]
        rate = f"{m['images_per_second']:,.0f} images/s"
        return f"loss {m['loss']:.3f} ({', '.join(terms)}); accuracy {m['id_accuracy']:.1%}; {rate}"


class Logbook:
    """The files; made by one process of a run only."""

    def __init__(self, run: Path, start: int, tensorboard: bool) -> None:
        self.path = run / runs.METRICS_FILE
        cut_log(self.path, start)
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)
        self.board = summary_writer(run / TENSORBOARD_FOLDER, start) if tensorboard else None

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; `step` is among its entries."""
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in line.items():
                if name not in ("step", "steps"):
                    self.board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.board is not None:
            self.board.close()


def summary_writer(folder: Path, start: int) -> Any:
    """TensorBoard's writer; what an interrupted run wrote after step `start` is discarded."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=start + 1)


def cut_log(path: Path, step: int) -> None:
    """Remove from a log the lines after a step, and a last line that was cut off."""
    if path.is_file():
        kept = [text for text in path.read_text(encoding="utf-8").splitlines(keepends=True) if _step_of(text) <= step]
        write_text(path, "".join(kept))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def _step_of(text: str) -> float:
    try:
        return json.loads(text)["step"] if text.endswith("\n") else float("inf")
    except ValueError:
        return float("inf")
