"""Exported detectors against the classifier they were made from, and in processes that have no srood."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import CLASSES, MEAN, STD, logits_by_hand, settled, write_calibrated, write_weights
from digits_images import digits

from srood.calibration import Calibration
from srood.detector import load_detector, open_network
from srood.errors import InputError
from srood.models import MODELS
from srood.models.weights import load_model, read_info
from srood.scores import SCORES
from train import cli
from train.detection.calibrate import calibrate
from train.detection.export import INPUT, OUTPUTS, SUFFIXES, DetectorGraph, _to_onnx, export

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
TIMM = "timm:resnet10t"
# the others take two minutes more
QUICK = ("resnet20", "wrn-40-2", TIMM)
GRAPHS = [
    pytest.param(format, name, marks=() if name in QUICK else pytest.mark.slow)
    for name in (*MODELS, TIMM)
    for format in ("onnx", "torchscript")
]


def _run_onnx(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: images}), strict=True))


def _run_torchscript(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        outputs = torch.jit.load(path)(torch.from_numpy(images))
    return dict(zip(OUTPUTS, (output.numpy() for output in outputs), strict=True))


def _published(record: Calibration) -> Calibration:
    """The record as an export holds it: without the folder of the held-out images."""
    return record.model_copy(update={"images": record.images.model_copy(update={"spec": "held-out.npy"})})


RUN = {"onnx": _run_onnx, "torchscript": _run_torchscript}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_calibrated(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    return {name: export(weights, name, folder / f"net{suffix}") for name, suffix in SUFFIXES.items()}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return digits()[0][300:330]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("format", "name"), GRAPHS)
def test_graphs_against_the_classifier(tmp_path, images, format, name):
    if name == TIMM:
        pytest.importorskip("timm")
    path = write_calibrated(tmp_path, name)
    expected = load_detector(path, "cpu").predict(images)
    np.testing.assert_allclose(expected.logits, logits_by_hand(settled(name), images), rtol=1e-4, atol=1e-4)
    threshold = load_detector(path, "cpu").threshold
    clear = np.abs(expected.scores - threshold) > 1e-4 + 1e-5 * abs(threshold)
    assert 0 < expected.is_ood[clear].sum() < clear.sum() > 20
    out = export(path, format)
    assert out == tmp_path / f"net.detector{SUFFIXES[format]}"
    for rows in (slice(0, 30), slice(7, 8)):  # neither is the batch of the export
        found = RUN[format](out, images[rows])
        for key, values in (("logits", "logits"), ("score", "scores"), ("confidence", "confidence")):
            np.testing.assert_allclose(found[key], getattr(expected, values)[rows], rtol=1e-5, atol=1e-4)
        assert np.array_equal(found["class_index"], expected.classes[rows])
        assert np.array_equal(found["is_ood"][clear[rows]], expected.is_ood[rows][clear[rows]])
        assert np.array_equal(found["is_ood"], found["score"] > np.float32(threshold))
        assert [found[key].dtype for key in OUTPUTS] == [np.float32, np.int64, np.float32, np.float32, np.bool_]


def test_the_older_exporter_makes_the_same_graph(weights, exported, images, tmp_path):
    network, calibration = open_network(weights)
    graph = DetectorGraph(network, SCORES["energy"], calibration.threshold).eval()
    onnx.save(_to_onnx(graph, 32, older=True), tmp_path / "older.onnx")
    newer, older = (_run_onnx(path, images) for path in (exported["onnx"], tmp_path / "older.onnx"))
    for name in OUTPUTS:
        np.testing.assert_allclose(older[name], newer[name], rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("score", [name for name in SCORES if name != "energy"])
def test_other_scores_are_in_the_graph(tmp_path, images, score):
    path = write_calibrated(tmp_path, score=score)
    expected = load_detector(path, "cpu").predict(images)
    assert 0 < expected.is_ood.sum() < len(images)
    for format, run in RUN.items():
        found = run(export(path, format), images)
        np.testing.assert_allclose(found["score"], expected.scores, rtol=1e-5, atol=1e-4)
        clear = np.abs(expected.scores - load_detector(path, "cpu").threshold) > 1e-5
        assert np.array_equal(found["is_ood"][clear], expected.is_ood[clear])


def test_an_onnx_file_is_a_detector_too(weights, exported, images, tmp_path):
    out = exported["onnx"]
    ours, theirs = load_detector(weights, "cpu"), load_detector(out)
    assert theirs.calibration == _published(ours.calibration)
    a, b = ours.predict(images), theirs.predict(list(images))
    np.testing.assert_allclose(b.scores, a.scores, rtol=1e-5, atol=1e-4)
    assert a.names == b.names
    graph = _run_onnx(out, images)
    assert np.array_equal(b.is_ood, graph["is_ood"]) and np.array_equal(b.logits, graph["logits"])
    with pytest.raises(InputError, match="--device cuda: ONNX graphs run on the CPU"):
        load_detector(out, "cuda")
    model = onnx.load(out)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other\.onnx: is an ONNX model but no detector"):
        load_detector(tmp_path / "other.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(InputError, match=r"text\.onnx: cannot be loaded as an ONNX model"):
        load_detector(tmp_path / "text.onnx")


def test_an_onnx_file_whose_record_is_of_another_graph(exported, tmp_path):
    model = onnx.load(exported["onnx"])
    (entry,) = [entry for entry in model.metadata_props if entry.key == "detector"]
    record = json.loads(entry.value)
    for change, message in (
        ({"class_names": list(CLASSES[:9])}, r"of 9 classes and .*'logits' is \('N', 10\)"),
        ({"image_size": 16}, r"images of 16 pixels, but its 'images' is \('N', 32, 32, 3\)"),
    ):
        entry.value = json.dumps(record | change)
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(InputError, match=rf"changed\.onnx: its record .*{message}"):
            load_detector(tmp_path / "changed.onnx")
    entry.value = json.dumps(record)
    model.graph.output.pop(3)  # the score
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(InputError, match=r"changed\.onnx: has no 'score', which a detector has"):
        load_detector(tmp_path / "changed.onnx")


def test_what_an_onnx_file_says_of_itself(weights, exported, tmp_path):
    out = exported["onnx"]
    model = onnx.load(out)
    record = _published(load_detector(weights, "cpu").calibration)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["class_names"]) == list(CLASSES)
    assert float(metadata["threshold"]) == record.threshold
    assert (metadata["score"], metadata["tpr"], metadata["image_size"]) == ("energy", "0.5", "32")
    assert metadata["srood_version"] == record.srood
    assert Calibration.model_validate_json(metadata["detector"]) == record
    (entry,) = model.graph.input
    shape = [d.dim_value or d.dim_param for d in entry.type.tensor_type.shape.dim]
    assert (entry.name, shape, entry.type.tensor_type.elem_type) == ("images", ["N", 32, 32, 3], onnx.TensorProto.UINT8)
    assert tuple(output.name for output in model.graph.output) == OUTPUTS
    again = export(weights, out=tmp_path / "again.onnx")
    assert again.read_bytes() == out.read_bytes()


def test_files_name_no_path_of_this_machine(exported, weights):
    here = str(Path(cli.__file__).parent.parent).encode()
    held_out = load_detector(weights, "cpu").calibration.images.spec
    assert held_out == str(weights.parent / "held-out.npy")
    for path in (exported["onnx"], exported["safetensors"]):
        record = load_detector(path, "cpu").calibration
        assert (record.images.spec, record.class_names) == ("held-out.npy", CLASSES)
    for path in exported.values():
        content = path.read_bytes()
        assert str(weights.parent).encode() not in content
        assert here not in content and b"site-packages" not in content and b"\nFile " not in content


def test_graphs_run_where_there_is_no_srood(weights, exported, images, tmp_path):
    for format in RUN:
        shutil.copy(exported[format], tmp_path)
    np.save(tmp_path / "images.npy", images)
    scripts = {
        "onnx": """
            import numpy, onnxruntime
            session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
            score, is_ood = session.run(["score", "is_ood"], {"images": numpy.load("images.npy")})
            assert "torch" not in sys.modules
            threshold = float(session.get_modelmeta().custom_metadata_map["threshold"])
        """,
        "torchscript": """
            import json, numpy, torch
            files = {"detector.json": ""}
            module = torch.jit.load("net.pt", _extra_files=files)
            logits, class_index, confidence, score, is_ood = module(torch.from_numpy(numpy.load("images.npy")))
            score, is_ood = score.numpy(), is_ood.numpy()
            threshold = json.loads(files["detector.json"])["threshold"]
        """,
    }
    expected = load_detector(weights, "cpu").predict(images)
    for script in scripts.values():
        lines = [line.strip() for line in script.strip().splitlines()]
        end = ["assert 'srood' not in sys.modules", "print(json.dumps([score.tolist(), is_ood.tolist(), threshold]))"]
        code = "\n".join(["import json, sys", *lines, *end])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        score, is_ood, threshold = json.loads(done.stdout)
        np.testing.assert_allclose(score, expected.scores, rtol=1e-5, atol=1e-4)
        assert is_ood == expected.is_ood.tolist()
        assert threshold == load_detector(weights, "cpu").threshold


def test_a_safetensors_file_carries_its_detector(weights, exported, images, tmp_path):
    out = Path(shutil.copy(exported["safetensors"], tmp_path))
    ours, theirs = load_detector(weights, "cpu"), load_detector(out, "cpu")
    assert theirs.calibration == _published(ours.calibration)
    assert np.array_equal(theirs.predict(images).scores, ours.predict(images).scores)
    info = read_info(out)
    assert (info.arch, info.mean, info.std, info.class_names, info.image_size) == ("resnet20", MEAN, STD, CLASSES, 32)
    a, b = (load_model(path)[0].state_dict() for path in (weights, out))
    assert all(torch.equal(a[key], b[key]) for key in a)
    # calibrated anew: what lies beside it counts, and what is inside stays as it was
    np.save(tmp_path / "held-out.npy", digits()[0][:40])
    record, file = calibrate(out, tpr=0.25, images=str(tmp_path / "held-out.npy"), device="cpu")
    assert load_detector(out, "cpu").threshold == record.threshold < ours.threshold
    file.unlink()
    assert load_detector(out, "cpu").threshold == ours.threshold


def test_what_cannot_be_exported(weights, tmp_path, monkeypatch):
    uncalibrated = write_weights(tmp_path / "new.safetensors")
    cases = [
        ((weights,), "--format is missing: choose one of onnx, torchscript, safetensors"),
        ((weights, None, tmp_path / "net.tflite"), "--format is missing"),
        ((weights, "tflite"), "--format tflite: choose one of"),
        ((weights, "onnx", tmp_path / "net.pt"), r"net\.pt: must end in \.onnx for --format onnx"),
        ((weights, "onnx", tmp_path / "no" / "net.onnx"), "there is no such folder"),
        ((uncalibrated, "onnx"), r"new\.safetensors: has no threshold yet; run `srood calibrate"),
        ((tmp_path / "nothing", "onnx"), "no such run folder"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            export(*arguments)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"--format onnx: needs onnxscript; .*pip install 'srood\[onnx\]"):
        export(weights, "onnx", tmp_path / "net.onnx")
    monkeypatch.setattr("train.detection.export._to_onnx", lambda graph, size: onnx.ModelProto())
    monkeypatch.delitem(sys.modules, "onnxscript")
    with pytest.raises(InputError, match="--format onnx: resnet20 cannot be exported"):  # the checker's refusal
        export(weights, "onnx", tmp_path / "net.onnx")
    assert not list(tmp_path.glob("net.*"))


def test_the_weights_are_not_overwritten(weights, tmp_path, monkeypatch):
    beside = weights.with_suffix(".detector.json")
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(weights, run / "model.safetensors")
    shutil.copy(beside, run / "detector.json")
    before = (run / "model.safetensors").read_bytes()
    monkeypatch.chdir(tmp_path)
    for path in (run, run / "model.safetensors"):
        if path.is_file():
            shutil.copy(beside, run / "model.detector.json")
        for out in (run / "model.safetensors", Path("run/../run/model.safetensors")):
            with pytest.raises(InputError, match=r"model\.safetensors: holds the weights that are exported"):
                export(path, "safetensors", out)
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("format", RUN)
def test_a_network_that_no_exporter_takes_is_one_line(weights, tmp_path, monkeypatch, format):
    from train.detection import export as module

    class Unexportable(module.DetectorGraph):
        def forward(self, images):
            raise RuntimeError("no such operator\nand a long explanation")

    monkeypatch.setattr(module, "DetectorGraph", Unexportable)
    with pytest.raises(
        InputError, match=f"^--format {format}: resnet20 cannot be exported \\(no such operator\\); use"
    ):
        export(weights, format, tmp_path / f"net{SUFFIXES[format]}")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_says_something_else_is_not_written(weights, tmp_path, monkeypatch):
    from train.detection import export as module

    class Other(module.DetectorGraph):
        def forward(self, images):
            logits, *rest = super().forward(images)
            return logits * (1.01 if torch.jit.is_tracing() else 1), *rest

    monkeypatch.setattr(module, "DetectorGraph", Other)
    with pytest.raises(InputError, match="the exported graph gives other logits than the classifier"):
        export(weights, "torchscript", tmp_path / "net.pt")
    assert not list(tmp_path.iterdir())


def test_the_command(weights, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["srood", "export", str(weights), "--format", "safetensors"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out = capfd.readouterr().out
    assert end.value.code in (None, 0)
    assert out == f"{weights.with_suffix('.detector.safetensors')}\n"
    assert load_detector(out.strip(), "cpu").threshold == load_detector(weights, "cpu").threshold
