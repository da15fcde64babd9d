"""Export: a calibrated classifier as one file that decides by itself.

ONNX and TorchScript hold one graph from uint8 images (N, S, S, 3), N free, to `OUTPUTS`, with normalisation, score and
threshold inside; its scores are float32. The safetensors file is the weights with the calibration in their metadata.
Of paths of this machine in the calibration (an ID set in a folder, held-out images) the last component is kept.
"""

from __future__ import annotations

import inspect
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srood.calibration import CALIBRATION_FILE, Calibration, detector_score
from srood.detector import PixelClassifier, open_network
from srood.errors import InputError
from srood.files import check_place, replace_file
from srood.models.weights import MODEL_FILE, WeightsInfo, save_weights
from srood.scores import Score
from train.local_paths import folders_in, without_paths

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}
INPUT = "images"
OUTPUTS = ("logits", "class_index", "confidence", "score", "is_ood")
OPSET, OLDER_OPSET = 18, 17
EXTRA_FILE = CALIBRATION_FILE  # in a TorchScript archive
TOLERANCE = 1e-3  # between a graph that was written and the one it was made from, as a share of the largest logit


class DetectorGraph(nn.Module):
    """Images to everything that is said of them, as one graph.

    Inputs are (N, H, W, 3) uint8. Outputs are, in this order, logits (N, C) float32, class_index (N,) int64,
    confidence (N,) float32, score (N,) float32 and is_ood (N,) bool.
    """

    threshold: Tensor

    def __init__(self, network: PixelClassifier, score: Score, threshold: float) -> None:
        super().__init__()
        self.network = network
        self.score = score
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.float32))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        logits, features = self.network(images)
        score = self.score(logits, features)
        confidence = logits.softmax(dim=1).amax(dim=1)
        return logits, logits.argmax(dim=1), confidence, score, torch.logical_not(score <= self.threshold)


def export(path: Path, format: str | None = None, out: Path | None = None) -> Path:
    """Write a calibrated classifier as one file, after checking that it says what the classifier says.

    Args:
        path: a calibrated run folder or weights file
        format: a key of `SUFFIXES`; by default what `out` ends with
        out: the file; by default ``detector.onnx``, ``.pt`` or ``.safetensors`` in the run folder, or
            ``NAME.detector.onnx`` ... beside a weights file. A file that is there is replaced.

    Returns:
        the file.

    Raises:
        InputError: `path` is not calibrated, `format` is unknown or not that of `out`, `out` is the weights file, a
            package is missing, or the graph cannot be exported.
    """
    if format is None and out is not None:
        format = next((name for name, suffix in SUFFIXES.items() if out.suffix.lower() == suffix), None)
    if format not in SUFFIXES:
        raise InputError(f"--format {format or 'is missing'}: choose one of {', '.join(SUFFIXES)}")
    suffix = SUFFIXES[format]
    if out is None:
        out = path / f"detector{suffix}" if path.is_dir() else path.with_suffix(f".detector{suffix}")
    if out.suffix.lower() != suffix:
        raise InputError(f"--out {out}: must end in {suffix} for --format {format}")
    check_place(out, "--out ")
    network, calibration = open_network(path)
    if out.exists() and out.samefile(path / MODEL_FILE if path.is_dir() else path):
        raise InputError(f"--out {out}: holds the weights that are exported, and is not replaced; name another file")
    calibration = _without_paths(calibration)
    if format == "safetensors":
        c = calibration
        info = WeightsInfo(c.model, c.id, c.mean, c.std, c.class_names, c.image_size, c.model_dump_json())
        save_weights(out, network.classifier.state_dict(), info)
        return out
    graph = (
        DetectorGraph(network, detector_score(calibration.score), calibration.threshold).eval().requires_grad_(False)
    )
    write = _write_onnx if format == "onnx" else _write_torchscript
    replace_file(out, lambda beside: write(graph, calibration, beside))
    return out


def _without_paths(calibration: Calibration) -> Calibration:
    document = calibration.model_dump(mode="json")
    return Calibration.model_validate(without_paths(document, folders=folders_in([document])))


@contextmanager
def _exporting(format: str, model: str) -> Iterator[None]:
    """What the exporters raise, which have no common base but Exception, as one line."""
    try:
        yield
    except Exception as error:
        first: BaseException = error
        while first.__cause__ is not None:  # torch wraps it into pages of advice
            first = first.__cause__
        reason = next(iter(str(first).splitlines()), "") or type(first).__name__
        raise InputError(f"--format {format}: {model} cannot be exported ({reason}); use another format") from error


def _write_onnx(graph: DetectorGraph, calibration: Calibration, path: Path) -> None:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise InputError(f"--format onnx: needs {error.name}; install it with `pip install 'srood[onnx]'`") from error
    with _exporting("onnx", calibration.model):
        model = _to_onnx(graph, calibration.image_size)
    for node in model.graph.node:  # where in which file each came from, on the machine of the export
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    onnx.helper.set_model_props(model, _metadata(calibration))
    with _exporting("onnx", calibration.model):
        onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    _check(graph, calibration.image_size, lambda images: session.run(list(OUTPUTS), {INPUT: images}), "onnx")


def _to_onnx(graph: DetectorGraph, size: int, older: bool | None = None) -> Any:
    """The graph as an onnx.ModelProto, by the exporter of torch.export, or by the older one where torch has only that.

    torch.export's is there from torch 2.5 on; the older is to be removed from torch some day.
    """
    import onnx

    known = inspect.signature(torch.onnx.export).parameters
    if older is None:
        older = "dynamic_shapes" not in known
    example = (torch.zeros(2, size, size, 3, dtype=torch.uint8),)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(OUTPUTS)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch to its own makers
        if not older:
            names |= {"dynamo": True, "opset_version": OPSET, "dynamic_shapes": ({0: torch.export.Dim("N")},)}
            program = torch.onnx.export(graph, example, verbose=False, **names)
            return program.model_proto  # type: ignore[union-attr]
        names |= {"opset_version": OLDER_OPSET, "dynamic_axes": {name: {0: "N"} for name in (INPUT, *OUTPUTS)}}
        names |= {"dynamo": False} if "dynamo" in known else {}
        stream = io.BytesIO()
        torch.onnx.export(graph, example, stream, **names)  # type: ignore[arg-type]
        return onnx.load_from_string(stream.getvalue())


def _write_torchscript(graph: DetectorGraph, calibration: Calibration, path: Path) -> None:
    stream = io.BytesIO()
    example = torch.zeros(2, calibration.image_size, calibration.image_size, 3, dtype=torch.uint8)
    with _exporting("torchscript", calibration.model), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch recommends torch.export; TorchScript is what was asked for
        torch.jit.save(torch.jit.trace(graph, example), stream, _extra_files={EXTRA_FILE: calibration.to_json()})
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as kept:
        for entry in archive.infolist():
            if not entry.filename.endswith(".debug_pkl"):  # paths and source lines of the machine of the export
                kept.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(path)

    def run(images: np.ndarray) -> Sequence[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in module(torch.from_numpy(images))]

    _check(graph, calibration.image_size, run, "torchscript")


def _metadata(calibration: Calibration) -> dict[str, str]:
    return {
        "class_names": json.dumps(calibration.class_names, ensure_ascii=False),
        "image_size": str(calibration.image_size),
        "score": calibration.score,
        "threshold": repr(calibration.threshold),
        "tpr": repr(calibration.tpr),
        "srood_version": calibration.srood,
        "detector": calibration.model_dump_json(),
    }


def _check(graph: DetectorGraph, size: int, run: Callable[[np.ndarray], Sequence[np.ndarray]], format: str) -> None:
    """Compare what was written with what it was made from, on batches of other sizes than that of the export."""
    rng = np.random.default_rng(0)
    for count in (1, 3):
        images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = dict(zip(OUTPUTS, (output.numpy() for output in graph(torch.from_numpy(images))), strict=True))
        found = dict(zip(OUTPUTS, run(images), strict=True))
        largest = max(1.0, float(np.abs(expected["logits"]).max()))
        for name in ("logits", "score", "confidence"):
            if not np.allclose(found[name], expected[name], rtol=TOLERANCE, atol=TOLERANCE * largest):
                raise InputError(
                    f"--format {format}: the exported graph gives other {name} than the classifier; use another format"
                )
