"""Files made to harm: what each case is, the files outside that nothing may touch, and how a case is tried."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from torture.forked import Watched, forked
from torture.processes import ROOT
from torture.trial import Effort, Trial

MEGABYTES = 900.0  # of memory beyond that of the imports
SECONDS = 60.0  # of processor time that a case may take
REFUSED = "one line, exit code 2"
ANY = -1
# what the commands read of the machine itself
SYSTEM = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/opt", "/bin", "/sbin", "/run", "/var/lib")


def pictures(count: int, seed: int) -> list[np.ndarray]:
    """(32, 32, 3) uint8 images of noise: no two alike, whatever is cut from them."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


def png(pixels: np.ndarray) -> bytes:
    """An image as PNG, which keeps every pixel and has checksums."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pixel_hashes(images: Iterable[np.ndarray]) -> list[str]:
    """SHA-256 of images as the outlier set has them."""
    from srood.hashes import pixel_sha256

    return [pixel_sha256(image) for image in images]


def write_id_set(folder: Path, images: Sequence[np.ndarray]) -> None:
    """An ID set of two classes, three fifths of it to train with."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    names = {"label": {"_type": "ClassLabel", "names": ["cat", "truck"]}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": names}})}
    cut = len(images) * 3 // 5
    for name, part in (("train", images[:cut]), ("test", images[cut:])):
        encoded = pa.array([png(image) for image in part], pa.binary())
        table = pa.table({"image": encoded, "label": pa.array([row % 2 for row in range(len(part))])})
        pq.write_table(table.replace_schema_metadata(metadata), folder / f"{name}.parquet")


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        fault: what is wrong with it, a row of the table
        make: writes it into a folder, beside which `outside` is, and returns what to name on the command line
        rows: images that are to come out of it; None where it is to be refused, ANY where either will do as long as
            every image that comes out is one of the file
        seconds: of processor time that it may take
    """

    fault: str
    make: Callable[[Path], Path]
    rows: int | None = None
    seconds: float = SECONDS


@dataclass
class Outside:
    """A folder with files that no case may read or change."""

    folder: Path
    secrets: list[str] = field(default_factory=list)
    state: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> Outside:
        """Write the files: an image, an array and an HDF5 file of images."""
        import h5py

        folder.mkdir()
        images = pictures(3, seed=99)
        (folder / "secret.png").write_bytes(png(images[0]))
        np.save(folder / "secret.npy", np.stack(images))
        (folder / "secret.bin").write_bytes(np.stack(images).tobytes())
        with h5py.File(folder / "secret.h5", "w") as file:
            file["image"] = np.stack(images)
        outside = cls(folder, pixel_hashes(images))
        outside.state = outside.look()
        return outside

    def look(self) -> dict[str, tuple[bytes, int]]:
        """Content and time of every file."""
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(self.folder.iterdir())}


def trespasses(watched: Watched, given: Path, outside: Outside) -> list[str]:
    """What a command touched that it was not given."""
    found = [f"read {path}" for path in watched.read if not _may_read(path, given)]
    found += [f"wrote {path}" for path in watched.written if not _may_write(path, given)]
    if outside.look() != outside.state:
        found.append("changed the files outside")
    return found


def bounds(watched: Watched, megabytes: float = MEGABYTES, seconds: float = SECONDS) -> list[str]:
    """What a command took too much of, and how it should not have ended."""
    found = [f"hung for {watched.ended.seconds:.0f} s"] * watched.ended.hung
    found += [f"took {watched.processor:.0f} s of processor time"] * (watched.processor > seconds)
    found += [f"took {watched.megabytes:.0f} MB"] * (watched.megabytes > megabytes)
    found += ["showed a traceback"] * watched.ended.traceback
    return found + [f"died of signal {-watched.ended.code}"] * (watched.ended.code < 0 and not watched.ended.hung)


def refusal(watched: Watched, names: Sequence[str] = ()) -> list[str]:
    """What is wrong with how a command refused something: it is to be one line that names the file, exit code 2."""
    ended = watched.ended
    if ended.code != 2 or len(ended.errors) != 1 or ended.errors[0] != ended.err.strip().splitlines()[-1]:
        return [f"exit code {ended.code}, {ended.err[-300:]!r}"]
    return [f"does not name {name}" for name in names if name not in ended.errors[0]]


def judged(fault: str, problems: Sequence[str], outcome: str, what: str) -> Trial:
    """A trial that passed where there are no problems; `what` says how to try it again."""
    return Trial(fault, "otherwise" if problems else outcome, not problems, f"{what}: {'; '.join(problems)}")


def read_cases(effort: Effort, cases: Iterable[Case], known: Sequence[np.ndarray]) -> Iterator[Trial]:
    """Read each case as a build does, each sixth where there is little time.

    Images that come out are to be of `known`, and as many as the case says.
    """
    good = set(pixel_hashes(known))
    for number, case in enumerate(cases):
        if effort.quick and number % 6:
            continue
        place = effort.folder / f"case-{number}"
        (place / "given").mkdir(parents=True)
        outside = Outside.make(place / "outside")
        spec = case.make(place / "given")
        limit = case.seconds * 5
        watched = forked(effort.quick).run("python", "torture.reading", spec, cwd=place / "given", limit=limit)
        problems = bounds(watched, seconds=case.seconds) + trespasses(watched, place / "given", outside)
        outcome = REFUSED
        if watched.ended.code == 0:
            found = json.loads(watched.ended.out)
            outcome = "the good images alone; the others counted by reason"
            if strange := [sha for sha in found["good"] if sha not in good]:
                problems.append(f"{len(strange)} images that are not of the file")
            if case.rows not in (ANY, len(found["good"])):
                problems.append(f"{len(found['good'])} images instead of {case.rows}: {found['reasons']}")
        elif case.rows not in (ANY, None):
            problems.append(f"refused: {watched.ended.err[-300:]!r}")
        else:
            problems += refusal(watched, [spec.name])
        yield judged(case.fault, problems, outcome, str(spec))


def _may_read(path: str, given: Path) -> bool:
    own = (str(given), sys.prefix, sys.base_prefix, str(ROOT), *sys.path[1:], *SYSTEM)
    return any(path == place or path.startswith(place + os.sep) for place in own if place) or _private(path)


def _may_write(path: str, given: Path) -> bool:
    return path == str(given) or path.startswith((str(given) + os.sep, "/dev/")) or _private(path)


def _private(path: str) -> bool:
    """Of the process that watches, and caches of Python."""
    return "/forked-" in path or "__pycache__" in path or path.startswith("/proc/")
