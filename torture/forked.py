"""The two commands in forked children of one process that has imported them, and every file that they open.

A command costs its own work, not the seconds of its imports, and its memory is known apart. Under `strace`, where that
is installed and allowed, the opened files are those of every library; elsewhere those that Python itself opens.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.processes import MODULES, ROOT, Ended, environment

CALLS = (
    "trace=open,openat,openat2,creat,rename,renameat,renameat2,unlink,unlinkat,truncate,link,linkat,symlink,symlinkat"
)
STRACE = ("strace", "-f", "--seccomp-bpf")  # the filter: calls that are not watched cost nothing
LIGHT = ("curate.cli", "train.cli", "curate.tables", "srood.datasets", "srood.outliers", "PIL.PngImagePlugin")
HEAVY = (
    *LIGHT,
    "curate.build",
    "curate.report",
    "curate.deriving.select",
    "curate.deriving.merge",
    "train.config",
    "torch",
    "onnxruntime",
)
ADDRESS_SPACE = 16 << 30  # bytes a command may map, so that what runs away ends before the machine does
WRITING = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")
MARK = "/torture-command-"  # opened, in vain, before and after a command: so that its calls are found in the log


@dataclass(frozen=True)
class Watched:
    """How a command ended, and what it touched.

    Attributes:
        ended: exit code, output, seconds
        processor: seconds of processor time that it took, which other work on the machine does not change
        megabytes: the most memory it had above what its imports take
        read, written: absolute paths of files that it opened, and of those that it changed
    """

    ended: Ended
    processor: float
    megabytes: float
    read: frozenset[str]
    written: frozenset[str]


class Forked:
    """A process that runs commands; `run` may be called from one thread."""

    def __init__(self, preloaded: tuple[str, ...]) -> None:
        """Start it; `preloaded` are the modules that it imports at once."""
        self.folder = Path(tempfile.mkdtemp(prefix="forked-"))
        self.log = self.folder / "strace"
        self.traced = _may_trace()
        words = [sys.executable, "-m", "torture.forked", *preloaded]
        if self.traced:
            options = ["-qq", "-s", "4096", "-e", CALLS, "-e", "signal=none", "-o", str(self.log)]
            words = [*STRACE, "-y", *options, *words]
        self.process = subprocess.Popen(
            words, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.number, self.place = 0, 0
        atexit.register(self.close)

    def run(self, *words: object, cwd: Path, limit: float = 60.0, env: dict[str, str] | None = None) -> Watched:
        """Run `curate ...`, `srood ...` or, as `python MODULE ...`, the `main` of a module."""
        self.number += 1
        out, err = self.folder / "out", self.folder / "err"
        opened = self.folder / "opened"
        asked = {
            "words": [*map(str, words)],
            "cwd": str(cwd),
            "limit": limit,
            "env": {"TMPDIR": str(self.folder), **(env or {})},
            "number": self.number,
        }
        asked |= {"out": str(out), "err": str(err), "opened": str(opened)}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        texts = (path.read_text(encoding="utf-8", errors="replace") for path in (out, err))
        ended = Ended(answer["code"], *texts, answer["seconds"], answer["hung"])
        lines = self._traced_lines() if self.traced else opened.read_text(errors="replace").splitlines()
        read, written = _paths(lines, cwd)
        return Watched(ended, answer["processor"], answer["megabytes"], read, written)

    def _traced_lines(self) -> list[str]:
        begin, end = f'"{MARK}{self.number}-begin"', f'"{MARK}{self.number}-end"'
        for _ in range(200):
            with open(self.log, encoding="utf-8", errors="replace") as file:
                file.seek(self.place)
                text = file.read()
            if end in text:
                self.place += len(text.encode("utf-8", "replace"))
                return text.partition(begin)[2].partition(end)[0].splitlines()[1:]
            time.sleep(0.02)
        raise RuntimeError(f"strace wrote nothing of command {self.number}")

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def forked(quick: bool) -> Forked:
    """The process that all areas share; where little is asked of it, it imports little."""
    return Forked(LIGHT if quick else HEAVY)


def _may_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    words = [*STRACE, "-qq", "-e", CALLS, "-o", os.devnull, "true"]
    tried = subprocess.run(words, capture_output=True, check=False)
    return tried.returncode == 0


def _paths(lines: list[str], cwd: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Of lines as strace writes them: what was opened to be read, with links followed; what was changed."""
    read, written = set(), set()
    for line in lines:
        call, _, result = line.rpartition(" = ")
        if result.startswith("-1") or not call:
            continue
        where = re.findall(r'(?:<([^<>]*)>, )?"((?:[^"\\]|\\.)*)"', call)
        paths = {os.path.normpath(os.path.join(folder or str(cwd), path)) for folder, path in where}
        if re.search(r"\bopen(?:at|at2)?\(", call):
            followed = re.fullmatch(r"\d+<(.*)>", result.strip())
            paths = {followed[1]} if followed else paths
            (written if any(flag in call for flag in WRITING) else read).update(paths)
        else:
            written.update(paths)
    return frozenset(read), frozenset(written)


# ---- in the process ------------------------------------------------------------------------------------------------


def _serve() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_command(asked)), flush=True)


def _mark(text: str) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(MARK + text, os.O_RDONLY))


def _command(asked: dict[str, Any]) -> dict[str, Any]:
    started, hung = time.monotonic(), False
    _mark(f"{asked['number']}-begin")
    child = os.fork()
    if not child:
        _child(asked)
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        if not hung and time.monotonic() - started > asked["limit"]:
            hung = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _mark(f"{asked['number']}-end")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = max(0, used.ru_maxrss - own) / 1024
    code = os.waitstatus_to_exitcode(status)
    processor, seconds = used.ru_utime + used.ru_stime, time.monotonic() - started
    return {"code": code, "seconds": seconds, "processor": processor, "hung": hung, "megabytes": megabytes}


def _child(asked: dict[str, Any]) -> None:
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name, handle in (("out", 1), ("err", 2)):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        opened = os.open(asked["opened"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.chdir(asked["cwd"])
        os.environ.update(asked["env"])
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.addaudithook(functools.partial(_note, opened))
        name, *rest = asked["words"]
        module = MODULES[name] if name in MODULES else rest.pop(0)
        sys.argv = [name, *rest]
        importlib.import_module(module).main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _note(handle: int, event: str, details: tuple[Any, ...]) -> None:
    """Write an opened path as strace would."""
    if event == "open" and isinstance(details[0], str | bytes | os.PathLike):
        flags = details[2] if isinstance(details[2], int) else 0
        words = "|O_WRONLY" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else ""
        os.write(handle, f'open("{os.fsdecode(details[0])}", O_RDONLY{words}) = 3\n'.encode("utf-8", "replace"))
    elif event in ("os.rename", "os.remove", "os.link", "os.symlink", "os.truncate"):
        paths = ", ".join(f'"{os.fsdecode(path)}"' for path in details[:2] if isinstance(path, str | os.PathLike))
        os.write(handle, f"{event}({paths}) = 0\n".encode("utf-8", "replace"))


if __name__ == "__main__":
    _serve()
