"""Checkpoints and YAML made to harm: pickles, lying headers, graphs with data elsewhere, altered runs."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from torture.forked import forked
from torture.hostile import REFUSED, Outside, bounds, judged, pictures, refusal, trespasses, write_id_set
from torture.processes import environment
from torture.trial import Effort, Trial

QUICK = ("YAML: a tag that runs a command", "YAML: aliases that expand to 10^11 values")  # the others import torch
Make = Callable[[Path], Path]


class Payload:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (os.system, ("touch ran-a-payload",))


def checkpoints(effort: Effort) -> Iterator[Trial]:
    """Weights, graphs, YAML, and the files of a run."""
    write_id_set(effort.folder / "id", pictures(40, effort.seed))
    cases = [*_weights(), *_yaml(), *_graphs()]
    chosen = [case for case in cases if case[0] in QUICK or not effort.quick]
    for number, (fault, make) in enumerate(chosen):
        place = effort.folder / f"case-{number}"
        (place / "given").mkdir(parents=True)
        outside = Outside.make(place / "outside")
        path = make(place / "given")
        words = ["python", "torture.reading", path] if effort.quick else _words(path, effort.folder / "id")
        watched = forked(effort.quick).run(*words, cwd=place / "given", limit=120)
        problems = bounds(watched) + trespasses(watched, effort.folder, outside) + refusal(watched, [path.name])
        problems += ["ran the payload"] * (place / "given" / "ran-a-payload").exists()
        if not effort.quick and "converts" in fault:
            problems += _converted(watched.ended.err, place / "given")
        outcome = REFUSED if "converts" not in fault else f"{REFUSED}, which names a command that converts it"
        yield judged(fault, problems, outcome, " ".join(map(str, words)))
    if not effort.quick:
        yield from _altered_runs(effort)


def _words(path: Path, ident: Path) -> list[object]:
    """The command that is given a file: the one which reads it."""
    build = ["curate", "build", "--source", ident, "--id", ident, *["--size", "5", "--workers", "1", "--out", "s.h5"]]
    if path.suffix == ".onnx":
        return [*build, "--embedder", f"onnx:{path}"]
    if path.suffix == ".yaml":
        return [*build, "--exclude-labels", path]
    return ["srood", "eval", path, "--id", ident, "--ood", ident / "test.parquet", "--model", "wrn-40-2"]


# ---- weights -------------------------------------------------------------------------------------------------------


def _weights() -> Iterator[tuple[str, Make]]:
    def file(fault: str, name: str, content: bytes | Callable[[], bytes]) -> tuple[str, Make]:
        return fault, partial(_write, name=name, content=content)

    header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    overlapping = {name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in "ab"}
    large = {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]}}
    yield file("weights: a bare pickle with a payload", "weights.pt", pickle.dumps(Payload()))
    yield file("weights: a pickled checkpoint with a payload", "weights.pt", _torch_zip(Payload()))
    yield file("weights: the same, named .safetensors", "weights.safetensors", _torch_zip(Payload()))
    yield "weights: a pickled state_dict, which the message converts", _state_dict
    yield file("weights: a header longer than the file", "w.safetensors", struct.pack("<Q", 1 << 62) + header)
    yield file("weights: a header longer than the file", "w.safetensors", struct.pack("<Q", 90 << 20) + header)
    yield file("weights: a header of no JSON", "w.safetensors", struct.pack("<Q", 8) + b"{" * 8)
    yield file("weights: a header nested 50,000 deep", "w.safetensors", struct.pack("<Q", 50_000) + b"[" * 50_000)
    for wrong in (overlapping, large, json.loads(header) | {"__metadata__": {"class_names": "[" * 50_000}}):
        text = json.dumps(wrong).encode()
        yield file("weights: tensors that lie", "w.safetensors", struct.pack("<Q", len(text)) + text + b"\0" * 16)
    yield file("weights: empty", "w.safetensors", b"")


def _write(folder: Path, name: str, content: bytes | Callable[[], bytes]) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content())
    return folder / name


def _torch_zip(value: object) -> bytes:
    """A checkpoint as torch.save writes it, whose pickle is of `value`."""
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def _state_dict(folder: Path) -> Path:
    import torch

    torch.save({"state_dict": {"fc.weight": torch.arange(6.0).reshape(2, 3)}}, folder / "it's weights.pt")
    return folder / "it's weights.pt"


def _converted(err: str, folder: Path) -> list[str]:
    """Run the command of a message, letter by letter, and compare what it wrote."""
    from safetensors.numpy import load_file

    words = err.partition("convert it with `")[2].rpartition("`, which")[0]
    # `python` is the one of the commands, as where a user has them
    env = environment({"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])})
    done = subprocess.run(["sh", "-c", words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    made = folder / "it's weights.safetensors"
    if done.returncode or not made.is_file():
        return [f"the command of the message fails: {shlex.join([words])}: {done.stderr[-200:]}"]
    same = np.array_equal(load_file(made)["fc.weight"], np.arange(6.0, dtype=np.float32).reshape(2, 3))
    return [] if same else ["the command of the message writes other tensors"]


# ---- YAML ----------------------------------------------------------------------------------------------------------


def _yaml() -> Iterator[tuple[str, Make]]:
    laughs = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    texts = {
        "YAML: a tag that runs a command": '- !!python/object/apply:os.system ["touch ran-a-payload"]\n',
        "YAML: aliases that expand to 10^11 values": laughs,
    }
    texts |= {
        "YAML: a tag that makes an object": "- !!python/object/new:os.system [touch ran-a-payload]\n",
        "YAML: an alias of what it is within": "- &a [*a]\n",
        "YAML: nested 100,000 deep": "[" * 100_000,
        "YAML: nested 5,000 deep by indentation": "".join(f"{' ' * n}a:\n" for n in range(5_000)),
        "YAML: a date that is none": "- 2020-13-45\n",
        "YAML: a number of 10,000 digits": f"- {'9' * 10_000}\n",
        "YAML: a key that is a list": "? [a, b]\n: c\n",
        "YAML: bytes that are no text": "- \x00\x01\n",
    }
    for fault, text in texts.items():
        yield fault, partial(_write, name="labels.yaml", content=text.encode())


# ---- graphs --------------------------------------------------------------------------------------------------------


def _graphs() -> Iterator[tuple[str, Make]]:
    yield "ONNX: no graph", partial(_write, name="model.onnx", content=b"\x08\x07" + b"\xff" * 100)
    for place in ("../outside/secret.bin", "/etc/hostname", "link.bin"):
        yield "ONNX: weights in a file outside", partial(_onnx, place=place)


def _onnx(folder: Path, place: str) -> Path:
    import onnx
    from onnx import TensorProto, helper

    if place == "link.bin":
        (folder / place).symlink_to("../outside/secret.bin")
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place), ("offset", "0"), ("length", "48")):
        weights.external_data.add(key=key, value=value)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 3, 32, 32])
    output = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 4])
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "w"], ["features"]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(nodes, "g", [image], [output], [weights, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    del onnx
    return folder / "model.onnx"


# ---- runs ----------------------------------------------------------------------------------------------------------


def _altered_runs(effort: Effort) -> Iterator[Trial]:
    """A run that stopped, one of its files altered, is to be resumed."""
    folder = effort.folder / "runs"
    folder.mkdir()
    words = ["srood", "pretrain", "--model", "wrn-40-2", "--max-steps", "2", "--device", "cpu", "--batch-size", "8"]
    started = forked(False).run(*words, "--id", effort.folder / "id", "--out", folder / "run", cwd=folder, limit=300)
    if started.ended.code:
        yield Trial("run: made to be altered", "not made", False, started.ended.err[-300:])
        return
    (folder / "run" / "model.safetensors").unlink()
    whole = folder / "as-it-was"  # so that what is refused below is refused for what was altered
    shutil.copytree(folder / "run", whole)
    ended = forked(False).run("srood", "pretrain", "--resume", whole, cwd=folder, limit=120).ended
    yield Trial("run: not altered", "goes on", ended.code == 0, f"{ended.code}: {ended.err[-300:]}")
    state, record, config = "checkpoints/*/state.pt", "run.json", "config.yaml"
    changes: list[tuple[str, str, bytes]] = [
        ("run: a state with a payload", state, _torch_zip(Payload())),
        ("run: a state with a payload", state, pickle.dumps(Payload())),
        ("run: an empty or damaged state", state, b""),
        ("run: weights that are a pickle", "checkpoints/*/weights.safetensors", _torch_zip(Payload())),
        ("run: a damaged record", record, b"[" * 100_000),
        ("run: a damaged record", record, b"[]"),
        ("run: a damaged record", record, b"{}"),
        ("run: a configuration with a tag", config, b'!!python/object/apply:os.system ["touch ran-a-payload"]'),
        ("run: a configuration of another form", config, b"- 1\n"),
    ]
    for number, (fault, pattern, content) in enumerate(changes):
        run = folder / f"run-{number}"
        shutil.copytree(folder / "run", run)
        next(run.glob(pattern)).write_bytes(content)
        watched = forked(False).run("srood", "pretrain", "--resume", run, cwd=folder, limit=120)
        problems = bounds(watched) + refusal(watched)
        problems += ["ran the payload"] * (folder / "ran-a-payload").exists()
        yield judged(fault, problems, REFUSED, f"srood pretrain --resume {run}")
