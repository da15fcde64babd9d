"""The commands that trials disturb, on small inputs: how each is started, goes on, and what it leaves at its end."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import numpy as np

from torture import processes
from torture.processes import Ended
from torture.trial import Effort, Trial

Result = dict[str, bytes]
TOKEN = "hf_tokenOfTheTrials"
SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class Case:
    """One command in a folder of its own.

    Attributes:
        words: the command, as `processes.command` takes it
        place: what it writes into; its parent is there
        again: the command that goes on after an interruption
        result: what is there at the end; the same after every trial
        env: what its environment has besides
    """

    words: Sequence[object]
    place: Path
    again: Callable[[], Sequence[object]]
    result: Callable[[], Result]
    env: Mapping[str, str] = field(default_factory=dict)
    at_first: int = 0  # files that are in the place before it starts

    def began(self) -> bool:
        """Whether something was written."""
        return self.place.is_dir() and len(list(self.place.iterdir())) > self.at_first

    def start(self, words: Sequence[object] | None = None, before: str = "") -> Popen:
        """The command, or another, in a process."""
        return processes.start(processes.command(*(words or self.words), before=before), self.place.parent, self.env)

    def go_on(self) -> Ended:
        """The command that goes on, to its end."""
        return processes.finish(self.start(self.again()))


@dataclass(frozen=True)
class Work:
    """A command: `opened` gives it a folder to write into and what it needs while it runs."""

    name: str
    opened: Callable[[Path], Iterator[Case]]

    @contextmanager
    def case(self, folder: Path) -> Iterator[Case]:
        """The command in a new folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with contextmanager(self.opened)(folder) as case:
            yield case


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbed: what it left, its seconds, and those until it first wrote."""

    result: Result
    seconds: float
    quiet: float


def undisturbed(work: Work, folder: Path) -> Undisturbed:
    """Run a command to its end."""
    with work.case(folder) as case:
        process, started = case.start(), time.monotonic()
        until_begun(case, process)
        quiet = time.monotonic() - started
        ended = processes.finish(process)
        if ended.code:
            raise RuntimeError(f"{work.name} fails undisturbed: {ended.err}")
        return Undisturbed(case.result(), time.monotonic() - started, quiet)


def until_begun(case: Case, process: Popen) -> None:
    """Wait until a process has written something, or ended."""
    while process.poll() is None and not case.began():
        time.sleep(0.005)


def strike_at(case: Case, process: Popen, whole: Undisturbed, dice: random.Random) -> bool:
    """Wait for a random point of a run: half of them after it began to write. False where it was over before."""
    if dice.random() < 0.5:
        wait = dice.uniform(0, whole.seconds)
    else:
        until_begun(case, process)
        wait = dice.uniform(0, max(0.05, whole.seconds - whole.quiet))
    deadline = time.monotonic() + wait
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    return process.poll() is None


def several(effort: Effort, number: int, trial: Callable[[int], Trial | list[Trial]]) -> Iterator[Trial]:
    """Trials 0 to `number` - 1, two at a time in a full run."""
    with ThreadPoolExecutor(1 if effort.quick else SIDE_BY_SIDE) as pool:
        for made in pool.map(trial, range(number)):
            yield from [made] if isinstance(made, Trial) else made


def dice_of(effort: Effort, *words: object) -> random.Random:
    """The random numbers of one trial."""
    return random.Random(" ".join(map(str, (effort.seed, *words))))


def difference(result: Result, expected: Result) -> str:
    """What differs between two results; empty where nothing does."""
    names = sorted(name for name in result.keys() | expected.keys() if result.get(name) != expected.get(name))
    return f"other than undisturbed: {', '.join(names)}" if names else ""


def said(ended: Ended) -> str:
    """How a process ended, to be printed."""
    return f"exit code {ended.code}; {ended.err[-1500:]!r}"


def files(folder: Path) -> Result:
    """Every file below a folder, by its path there."""
    if not folder.is_dir():
        return {}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- the commands ---------------------------------------------------------------------------------------------------


def works(folder: Path) -> dict[str, Work]:
    """All of them; their inputs are made in `folder`."""
    inputs = folder / "inputs"
    return {work.name: work for work in (_build(inputs), _train(inputs), *_of_sets(inputs), *_of_runs(inputs))}


SOURCES = 6  # each is a batch of its own


def build_inputs(inputs: Path) -> Path:
    """An ID set of 80 pictures, and a corpus of 360 in six files with repeats, leaks and excluded labels."""
    from pictures import pictures, write_parquet

    root = inputs / "build"
    if not root.exists():
        ident, corpus = pictures(80, seed=1), pictures(360, seed=2)
        corpus[300:310], corpus[340:345] = corpus[:10], ident[:5]
        write_parquet(root / "id" / "train.parquet", ident[:60], [i % 3 for i in range(60)], ["a", "b", "c"])
        write_parquet(root / "id" / "test.parquet", ident[60:], [i % 3 for i in range(20)], ["a", "b", "c"])
        for number, part in enumerate(np.array_split(corpus, SOURCES)):
            labels = [i % 4 == 0 for i in range(len(part))]
            write_parquet(root / f"corpus-{number}.parquet", list(part), [int(i) for i in labels], ["thing", "stuff"])
        (root / "exclude.txt").write_text("stuff\n")
    return root


def build_words(root: Path, out: Path) -> tuple[object, ...]:
    """The command that builds a set of these."""
    corpus = [word for n in range(SOURCES) for word in ("--source", root / f"corpus-{n}.parquet")]
    words = ("curate", "build", *corpus, "--id", root / "id", "--size", "200", "--workers", "1")
    return (*words, "--exclude-labels", root / "exclude.txt", "--out", out)


def _build(inputs: Path) -> Work:
    def opened(folder: Path) -> Iterator[Case]:
        root, out = build_inputs(inputs), folder / "out"
        words = build_words(root, out / "mini.h5")
        yield Case(words, out, lambda: words, lambda: files(out))

    return Work("curate build", opened)


def train_inputs(inputs: Path) -> dict[str, object]:
    """What a short tuning run is given."""
    from digits_images import write_training_files

    root = inputs / "train"
    if not root.exists():
        root.mkdir(parents=True)
        write_training_files(root, 60, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    names = {"id": "id", "checkpoint": "start.safetensors", "outliers": "outliers/mini.h5"}
    return {option: root / name for option, name in names.items()}


def _train(inputs: Path) -> Work:
    def opened(folder: Path) -> Iterator[Case]:
        run = folder / "run"
        settings = {**train_inputs(inputs), "model": "resnet20", "batch_size": 8, "outlier_batch_size": 8}
        settings |= {"max_steps": 24, "checkpoint_every": 3, "device": "cpu", "precision": "32-true", "lr": 0.01}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        first = ("srood", "train", *options, "--out", run)

        def again() -> Sequence[object]:
            begun = any(run.glob("checkpoints/step-*"))
            return ("srood", "train", "--resume", run) if begun else first

        yield Case(first, run, again, lambda: _trained(run))

    return Work("srood train", opened)


def _trained(run: Path) -> Result:
    """A run's weights, the names of its files, and its log but for the time."""
    found = files(run)
    log = [json.loads(line) for line in found.get("metrics.jsonl", b"").splitlines()]
    for line in log:
        line.pop("seconds"), line.pop("images_per_second")
    names = "\n".join(sorted(found)).encode()
    return {
        "model.safetensors": found.get("model.safetensors", b""),
        "metrics": json.dumps(log).encode(),
        "names": names,
    }


def calibrated(inputs: Path) -> Path:
    """A folder with a calibrated run, an ID set and an OOD set."""
    from digits_images import write_digits
    from digits_runs import write_ood

    root = inputs / "runs"
    if not root.exists():
        write_ood(root / "ood.parquet")
        small = ("--model=resnet20", "--image-size=16", "--max-steps=1", "--batch-size=8", "--device=cpu")
        trained = ("srood", "pretrain", "--id", write_digits(root / "id", 40, 100), *small, "--out", root / "run")
        for words in (trained, ("srood", "calibrate", root / "run", "--device=cpu")):
            ended = processes.run(*words, cwd=inputs)
            if ended.code:
                raise RuntimeError(ended.err)
    return root


def _of_runs(inputs: Path) -> list[Work]:
    def detect(folder: Path) -> Iterator[Case]:
        root, out = calibrated(inputs), folder / "out"
        out.mkdir()
        words = ("srood", "detect", root / "run", root / "ood.parquet", "--out", out / "found.jsonl")
        yield Case(words, out, lambda: words, lambda: files(out))

    def evaluate(folder: Path) -> Iterator[Case]:
        root, run = calibrated(inputs), folder / "run"
        shutil.copytree(root / "run", run)
        words = ("srood", "eval", run, "--ood", root / "ood.parquet", "--device", "cpu")

        def result() -> Result:  # the names of all files, and what was measured
            found = files(run)
            names = "\n".join(sorted(found)).encode()
            return {"names": names, "eval.json": found.get("eval.json", b"").replace(str(folder).encode(), b"")}

        yield Case(words, run, lambda: words, result, at_first=len(list(run.iterdir())))

    return [Work("srood detect", detect), Work("srood eval", evaluate)]


def sets(inputs: Path) -> Path:
    """Three small outlier sets, `a`, `b` and `c`."""
    import small_sets

    root = inputs / "sets"
    return root if root.exists() else small_sets.make(root)


def published(inputs: Path) -> Path:
    """A set that may be published."""
    import published_sets

    root = inputs / "published"
    return root / "sets" / "mini.h5" if root.exists() else published_sets.make_built(root)


def _of_sets(inputs: Path) -> list[Work]:
    def simple(name: str, words: Callable[[Path, Path], Sequence[object]]) -> Work:
        def opened(folder: Path) -> Iterator[Case]:
            given = ("curate", name, *words(sets(inputs), folder / "out"))
            yield Case(given, folder / "out", lambda: given, lambda: files(folder / "out"))

        return Work(f"curate {name}", opened)

    def publish(folder: Path) -> Iterator[Case]:
        from hub_server import HubServer

        source = published(inputs)
        with HubServer() as server:
            server.writers[TOKEN] = ["owner"]
            shutil.copytree(source.parent, folder / "set")
            place, at_first = folder / "set", len(list(source.parent.iterdir()))
            env = _hub_env(server.endpoint, folder / "hf")

            def result() -> Result:
                repo = server.repos.get("owner/things")
                uploaded = {} if repo is None else repo.files(repo.refs["main"])
                address = server.endpoint.encode()  # is in what is published, and another at each trial
                there = {name: path.read_bytes().replace(address, b"https://hub") for name, path in uploaded.items()}
                return {**there, **files(place)}

            words = ("curate", "publish", place / source.name, "owner/things")
            yield Case(words, place, lambda: words, result, env, at_first)

    def pull(folder: Path) -> Iterator[Case]:
        from hub_server import HubServer

        with HubServer() as server:
            server.add("owner/things", _repository(inputs), license="cc-by-4.0")
            words = ("curate", "pull", "owner/things", "--out", folder / "out")
            env = _hub_env(server.endpoint, folder / "hf")
            yield Case(words, folder / "out", lambda: words, lambda: files(folder / "out"), env)

    return [
        Work("curate publish", publish),
        Work("curate pull", pull),
        simple("merge", lambda root, out: [root / "a/mini.h5", root / "b/mini.h5", "--out", out / "x.h5"]),
        simple("select", lambda root, out: [root / "a/mini.h5", "--size", "140", "--out", out / "x.h5"]),
        simple("export", lambda root, out: [root / "a/mini.h5", "--format", "parquet", "--out", out]),
        simple("rebuild", lambda root, out: [root / "b/mini.h5", "--out", out / "mini.h5", "--look-in", root]),
    ]


def _repository(inputs: Path) -> Path:
    """What `curate publish` would upload."""
    root = inputs / "repository"
    if not root.exists():
        words = ("curate", "publish", published(inputs), "owner/things", "--dry-run", root)
        ended = processes.run(*words, cwd=inputs)
        if ended.code:
            raise RuntimeError(ended.err)
    return root


def _hub_env(endpoint: str, home: Path) -> dict[str, str]:
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    return {**hub, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": TOKEN}


def scratch(effort: Effort) -> Path:
    """A new folder for one trial."""
    return Path(tempfile.mkdtemp(dir=effort.folder))
