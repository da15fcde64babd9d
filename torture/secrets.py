"""Tokens and passwords: after each command that talks to the Hub, whatever was printed or written is searched for them.

The Hub is one on this machine (of the tests), which fails where it is told to. A token comes from HF_TOKEN, from the
file that `hf auth login` writes, or from a file that --token names.
"""

from __future__ import annotations

import base64
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from torture import processes, watching
from torture.hub import HubServer, pictures, write_parquet
from torture.trial import Effort, Trial

HIDDEN = "not printed, not written, in no command line"
FAILURES: tuple[int | None, ...] = (401, 403, 429, 500, None)  # None: the connection is cut
PLACES = ("environment", "login", "file")


class Watched:
    """A Hub and a folder in which commands run, with a token that must stay out of everything."""

    def __init__(self, effort: Effort, hub: HubServer) -> None:
        rng = np.random.default_rng(effort.seed)
        self.token = "hf_" + "".join(rng.choice(list("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz"), 34))
        self.password = "pw" + "".join(rng.choice(list("abcdefghijkmnpqrstuvwxyz"), 20))
        self.hub, self.folder = hub, effort.folder / "work"
        self.homes = effort.folder / "homes"
        self.kept = effort.folder / "kept" / "token.txt"
        for folder in (self.folder, self.homes, self.kept.parent):
            folder.mkdir()
        self.kept.write_text(self.token + "\n")
        self.count = 0
        hub.writers[self.token] = ["owner"]

    def run(self, fault: str, place: str, *words: object, codes: tuple[int, ...] = (0,), **environment: str) -> Trial:
        """Run a command whose token comes from a place, and search for it."""
        self.count += 1
        home = self.homes / str(self.count)
        home.mkdir()
        settings = {"HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "", "HF_HUB_VERBOSITY": "debug"}
        if place == "environment":
            settings["HF_TOKEN"] = self.token
        elif place == "login":
            (home / "token").write_text(self.token)
        else:
            words = (*words, "--token", self.kept)
        process = processes.start(processes.command(*words), self.folder, {**settings, **environment})
        lines: list[bytes] = []
        ended_event = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(process.pid, lines, ended_event))
        watcher.start()
        ended = processes.finish(process, 300)
        ended_event.set()
        watcher.join()
        if place == "login":
            (home / "token").unlink()
        found = [f"printed: {ended.out}{ended.err}"] if self._in((ended.out + ended.err).encode()) else []
        found += ["in a command line"] if any(self._in(line) for line in lines) else []
        found += [f"written to {path}" for path in self._written(home)]
        shutil.rmtree(home)
        if found:
            return Trial(fault, "seen", False, f"{words}: {'; '.join(found)}")
        if ended.code not in codes or (ended.code and len(ended.errors) != 1):
            return Trial(fault, "another end", False, f"{words}: exit code {ended.code}: {ended.err[-600:]}")
        return Trial(fault, HIDDEN, True)

    def _watch(self, pid: int, lines: list[bytes], ended: threading.Event) -> None:
        while not ended.wait(0.05):
            for each in (pid, *watching.descendants(pid)):
                try:
                    lines.append(Path(f"/proc/{each}/cmdline").read_bytes())
                except OSError:
                    continue

    def _in(self, data: bytes) -> bool:
        secrets = (self.token.encode(), self.password.encode())
        # after an odd number of other bytes Base64 has other letters: those of the middle are the same each third
        encoded = [base64.b64encode(secret[start:-3])[:-4] for secret in secrets for start in range(3)]
        return any(text in data for text in (*secrets, *encoded))

    def _written(self, home: Path) -> Iterator[Path]:
        for root in (self.folder, home, self.hub.storage):
            for folder, _, names in os.walk(root):
                for name in names:
                    path = Path(folder, name)
                    if self._in(os.fsencode(path)) or (path.is_file() and self._in(path.read_bytes())):
                        yield path


def trials(effort: Effort) -> Iterator[Trial]:
    """Every command that talks to the Hub, from every place of a token, also while the Hub fails."""
    with HubServer() as hub:
        work = Watched(effort, hub)
        settings = write_images(work.folder, effort.seed)
        serve_corpus(work)
        made = work.folder / "made" / "mini.h5"
        building = ["curate", "build", "--source", "hf://owner/things", *settings, "--workers", 1]
        fault = "a corpus is read from a private repository of the Hub"
        yield work.run(fault, "environment", *building, "--out", made)
        if effort.quick:
            return
        yield work.run(fault, "login", *building, "--out", work.folder / "again" / "mini.h5")
        yield from of_sets(work, made)
        yield from of_runs(work, made)
        yield from with_password(work, building, made)
        yield from refused(work, made)


def write_images(folder: Path, seed: int) -> list[object]:
    """An ID set; the options of a build with it."""
    ident = pictures(160, seed + 1)  # calibration needs 72 for testing
    for name, part in (("train", ident[:60]), ("test", ident[60:])):
        write_parquet(folder / "id" / f"{name}.parquet", list(part), [i % 2 for i in range(len(part))], ["a", "b"])
    return ["--id", folder / "id", "--size", 60, "--source-license", "cc-by-4.0"]


def serve_corpus(work: Watched) -> None:
    """A private repository with images, and a licence that lets them be passed on."""
    corpus = work.homes.parent / "served"
    write_parquet(corpus / "data" / "train-00000-of-00001.parquet", list(pictures(90, 7)), [i % 3 for i in range(90)])
    (corpus / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    work.hub.add("owner/things", corpus, private=True)


def of_sets(work: Watched, made: Path) -> Iterator[Trial]:
    """publish, pull and rebuild, and each of these while the Hub fails."""
    publish = ["curate", "publish", made, "owner/mini"]
    for place in PLACES:
        yield work.run("`curate publish`", place, *publish, "--message", f"by {place}")
    for place in PLACES:
        yield work.run("`curate pull`", place, "curate", "pull", "owner/mini", "--out", work.folder / place)
    yield work.run(
        "`curate rebuild` of a set on the Hub",
        "environment",
        "curate",
        "rebuild",
        "hf://owner/mini",
        "--out",
        work.folder / "rebuilt" / "mini.h5",
        "--look-in",
        work.folder,
        "--workers",
        1,
        codes=(0, 1),
    )
    for number, status in enumerate(FAILURES):
        place = PLACES[number % 3]
        work.hub.fail_next(status, times=10_000)
        yield work.run("`curate publish`, and the Hub fails", place, *publish, codes=(2,))
        yield work.run(
            "`curate pull`, and the Hub fails",
            place,
            "curate",
            "pull",
            "owner/mini",
            "--out",
            work.folder / "x",
            codes=(2,),
        )
        source = ["--source", "hf://owner/things", "--id", work.folder / "id", "--size", 60]
        yield work.run(
            "a corpus is read, and the Hub fails",
            PLACES[number % 2],
            *["curate", "build", *source, "--out", work.folder / "failed" / "mini.h5"],
            codes=(2,),
        )
        work.hub.plan_nothing()


def of_runs(work: Watched, made: Path) -> Iterator[Trial]:
    """Training on outliers of the Hub, its record, TensorBoard's files and ONNX; push, also while the Hub fails."""
    common = ["--id", work.folder / "id", "--model", "resnet20", "--device", "cpu", "--precision", "32-true"]
    common += ["--batch-size", 8, "--max-steps", 2]
    first, run = work.folder / "pretrained", work.folder / "run"
    yield work.run("`srood pretrain`", "environment", "srood", "pretrain", *common, "--tensorboard", "--out", first)
    outliers = ["--outliers", "hf://owner/mini", "--outlier-batch-size", 8, "--checkpoint", first]
    train = ["srood", "train", *common, *outliers, "--tensorboard"]
    for number, place in enumerate(("environment", "login")):
        yield work.run("`srood train` with outliers of the Hub", place, *train, "--out", f"{run}-{number}")
    exporting = ["srood", "export", f"{run}-0", "--format", "onnx"]
    calibrate = ["srood", "calibrate", f"{run}-0"]
    yield work.run("`srood calibrate`", "environment", *calibrate)
    yield work.run("`srood export` as ONNX", "environment", *exporting)
    push = ["srood", "push", f"{run}-0", "owner/model", "--license", "mit"]
    for place in ("environment", "login"):
        yield work.run("`srood push`", place, *push, "--message", f"by {place}")
    for number, status in enumerate(FAILURES):
        place = PLACES[number % 2]
        work.hub.fail_next(status, times=10_000)
        yield work.run("`srood push`, and the Hub fails", place, *push, "--message", "again", codes=(2,))
        yield work.run("`srood train`, and the Hub fails", place, *train, "--out", f"{run}-failed", codes=(2,))
        work.hub.plan_nothing()


def with_password(work: Watched, building: list[object], made: Path) -> Iterator[Trial]:
    """The Hub's address with a name and a password in it, of a mirror for instance; it works, fails, or is down."""
    address = work.hub.endpoint.replace("//", f"//jane:{work.password}@")
    fault = "the Hub's address holds a password"
    for status in (*FAILURES, "works", "down"):
        if isinstance(status, int) or status is None:
            work.hub.fail_next(status, times=10_000)
        endpoint = address if status != "down" else f"http://jane:{work.password}@127.0.0.1:9"
        # the client sends name and password in place of the token: what is public can be read, and nothing written
        codes = (0, 2) if status == "works" else (2,)
        out = work.folder / f"password-{status}"
        wanted: list[list[Any]] = [
            [*building, "--out", out / "mini.h5"],
            ["curate", "publish", made, "owner/mini", "--message", str(status)],
            ["curate", "pull", "owner/mini", "--out", out],
        ]
        for words in wanted:
            yield work.run(fault, "environment", *words, codes=codes, HF_ENDPOINT=endpoint, HF_HUB_VERBOSITY="warning")
        work.hub.plan_nothing()


def refused(work: Watched, made: Path) -> Iterator[Trial]:
    """A user who gives a token as an argument after all, and addresses with passwords where none belongs."""
    for spec in (f"https://jane:{work.password}@example.org/x.parquet", f"hf://jane:{work.password}@example.org/x"):
        fault = "an address with a password in place of a corpus"
        words = ["curate", "build", "--source", spec, "--id", work.folder / "id", "--out", work.folder / "no.h5"]
        yield refused_without_traces(fault, work, words)


def refused_without_traces(fault: str, work: Watched, words: list[object]) -> Trial:
    """What was given as an argument was to be seen there; it is not to be printed or written on top of that."""
    ended = processes.run(*words, cwd=work.folder)
    seen = [str(path) for path in work._written(work.folder)]
    seen += [ended.err] if work.password in ended.out + ended.err else []
    if ended.code != 2 or len(ended.errors) != 1:
        return Trial(fault, "another end", False, f"exit code {ended.code}: {ended.err[-500:]}")
    return Trial(fault, "refused, and not repeated" if not seen else "seen", not seen, "; ".join(seen))
