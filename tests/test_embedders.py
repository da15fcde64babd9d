import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from curate import pretrained
from curate.embedders import open_embedder
from curate.pretrained import IMAGENET_MEAN, IMAGENET_STD, read_input
from srood.errors import InputError

MEAN, STD = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer by hand, as the onnx package may be missing: (field number, integer or bytes)."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


FLOAT, UINT8, INT64 = 1, 2, 7  # TensorProto.DataType


def value_info(name: str, kind: int, shape: tuple[int | str, ...]) -> bytes:
    dimensions = [(1, message((1, n) if isinstance(n, int) else (2, n))) for n in shape]
    return message((1, name), (2, message((1, message((1, kind), (2, message(*dimensions)))))))


def node(kind: str, inputs: list[str], output: str, **attributes: int | list[int]) -> bytes:
    described = []
    for name, value in attributes.items():
        if isinstance(value, int):
            described.append((5, message((1, name), (3, value), (20, 2))))
        else:
            described.append((5, message((1, name), *((8, v) for v in value), (20, 7))))
    return message(*((1, name) for name in inputs), (2, output), (4, kind), *described)


def model(path, nodes, inputs, outputs, constants=(), metadata=None):
    """Write an ONNX model (ModelProto: IR version 8, opset 13)."""
    initializers = [
        (5, message(*((1, n) for n in values.shape), (2, FLOAT), (8, name), (9, values.astype("<f4").tobytes())))
        for name, values in constants
    ]
    graph = message(
        *((1, entry) for entry in nodes),
        (2, "graph"),
        *initializers,
        *((11, entry) for entry in inputs),
        *((12, entry) for entry in outputs),
    )
    properties = [(14, message((1, key), (2, value))) for key, value in (metadata or {}).items()]
    path.write_bytes(message((1, 8), (7, graph), (8, message((1, ""), (2, 13))), *properties))
    return path


def pooling_model(path, shape=("N", 3, 16, 16), kind=FLOAT, metadata=None, keep=1):
    """The mean of each of 4x4 cells, (N, 3, 4, 4), or flat (N, 48)."""
    nodes, last = [], "x"
    if kind == UINT8:
        nodes, last = [node("Cast", ["x"], "f", to=FLOAT)], "f"
    if shape[1] != 3:
        nodes.append(node("Transpose", [last], "t", perm=[0, 3, 1, 2]))
        last = "t"
    nodes.append(node("AveragePool", [last], "y", kernel_shape=[4, 4], strides=[4, 4]))
    outputs = [value_info("y", FLOAT, ("N", 3, 4, 4))]
    if not keep:
        nodes.append(node("Flatten", ["y"], "z", axis=1))
        outputs = [value_info("y", FLOAT, ("N", 3, 4, 4)), value_info("z", FLOAT, ("N", 48))]
    return model(path, nodes, [value_info("x", kind, shape)], outputs, metadata=metadata)


def cells(images: np.ndarray) -> np.ndarray:
    """(N, 3, 4, 4) means of a 16-pixel image's cells."""
    return images.astype(float).reshape(len(images), 4, 4, 4, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)


def test_onnx_of_floats_gets_imagenet_normalisation_and_its_spatial_output_is_averaged(tmp_path, images):
    pytest.importorskip("onnxruntime")
    embedder = open_embedder(f"onnx:{pooling_model(tmp_path / 'm.onnx')}")
    expected = (images.astype(float).mean(axis=(1, 2)) / 255 - MEAN) / STD
    assert np.allclose(embedder.embed(images).vectors, unit(expected), atol=1e-5)
    assert embedder.name == "onnx" and len(embedder.fingerprint) == 64


def test_onnx_two_dimensional_output_comes_first_and_metadata_is_heeded(tmp_path, images):
    pytest.importorskip("onnxruntime")
    metadata = {"mean": "0.5,0.25,0", "std": "1,0.5,2"}
    path = pooling_model(tmp_path / "m.onnx", metadata=metadata, keep=0)
    normal = (images / 255 - np.array([0.5, 0.25, 0])) / np.array([1, 0.5, 2])
    expected = unit(cells(normal).reshape(70, -1))
    assert np.allclose(open_embedder(f"onnx:{path}").embed(images).vectors, expected, atol=1e-5)


def test_onnx_of_bytes_channels_last_at_the_size_that_metadata_names(tmp_path, images):
    pytest.importorskip("onnxruntime")
    path = pooling_model(tmp_path / "m.onnx", ("N", "H", "W", 3), UINT8, {"image_size": "16"})
    expected = unit(images.astype(float).mean(axis=(1, 2)))  # the output is (N, 3, 4, 4): 4 and 4 are rows and columns
    assert np.allclose(open_embedder(f"onnx:{path}").embed(images).vectors, expected, atol=1e-5)


def test_onnx_resizes_as_torch_does(tmp_path, images):
    pytest.importorskip("onnxruntime")
    embedder = open_embedder(f"onnx:{pooling_model(tmp_path / 'm.onnx', keep=0)}")
    small = np.ascontiguousarray(images[:, ::2, ::2])
    tensor = torch.from_numpy(small).permute(0, 3, 1, 2).float()
    large = torch.nn.functional.interpolate(tensor, size=(16, 16), mode="bilinear", antialias=True)
    normal = (large.permute(0, 2, 3, 1).numpy() / 255 - MEAN) / STD
    assert np.allclose(embedder.embed(small).vectors, unit(cells(normal).reshape(70, -1)), atol=1e-4)


@pytest.mark.parametrize("fixed", ["N", 8])
def test_batches_change_no_bit(tmp_path, images, fixed):
    pytest.importorskip("onnxruntime")
    embedder = open_embedder(f"onnx:{pooling_model(tmp_path / 'm.onnx', (fixed, 3, 16, 16))}")
    whole = embedder.embed(images).vectors
    for rows in (1, 7, 32, 50):
        parts = [embedder.embed(images[start : start + rows]).vectors for start in range(0, 70, rows)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert embedder.embed(images[:0]).vectors.shape == (0, whole.shape[1])


def test_batches_change_no_bit_of_a_checkpoint_or_a_thumbnail(tmp_path):
    from srood.models import build_model
    from srood.models.weights import WeightsInfo, save_weights

    torch.manual_seed(0)
    info = WeightsInfo("resnet20", mean=IMAGENET_MEAN, std=IMAGENET_STD, image_size=32)
    save_weights(tmp_path / "m.safetensors", build_model("resnet20", 10).state_dict(), info)
    images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    for spec in ("thumbnail", f"checkpoint:{tmp_path / 'm.safetensors'}"):
        embedder = open_embedder(spec)
        whole = embedder.embed(images)
        parts = [embedder.embed(images[start : start + 77]) for start in range(0, 300, 77)]
        assert np.array_equal(np.concatenate([part.vectors for part in parts]), whole.vectors)
        if whole.energy is not None:
            assert np.array_equal(np.concatenate([part.energy for part in parts]), whole.energy)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("clip", "--embedder clip: no such embedder; one of thumbnail, checkpoint:PATH, onnx:PATH and timm:NAME"),
        ("onnx:", "--embedder onnx:: no such embedder"),
        ("onnx:gone.onnx", "gone.onnx: no such file"),
        ("onnx:text.onnx", "text.onnx: cannot be loaded as an ONNX model"),
        ("onnx:two.onnx", r"two.onnx: takes 2 inputs \(a, b\)"),
        ("onnx:flat.onnx", r"flat.onnx: its input is tensor\(float\) of shape \['N', 10\]; an image embedder takes"),
        ("onnx:scalar.onnx", "scalar.onnx: no output holds one vector an image"),
        ("onnx:odd.onnx", "odd.onnx: its metadata make no sense"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, spec, words):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("no model")
    image, out = value_info("a", FLOAT, ("N", 3, 16, 16)), value_info("y", FLOAT, ("N", 3, 16, 16))
    second = value_info("b", FLOAT, ("N", 3, 16, 16))
    model(tmp_path / "two.onnx", [node("Add", ["a", "b"], "y")], [image, second], [out])
    flat = value_info("a", FLOAT, ("N", 10)), value_info("y", FLOAT, ("N", 10))
    model(tmp_path / "flat.onnx", [node("Relu", ["a"], "y")], [flat[0]], [flat[1]])
    scalar = node("ReduceMean", ["a"], "y", keepdims=0)
    model(tmp_path / "scalar.onnx", [scalar], [image], [value_info("y", FLOAT, ())])
    pooling_model(tmp_path / "odd.onnx", metadata={"std": "1,1"})
    with pytest.raises(InputError, match=words) as error:
        open_embedder(spec)
    assert "\n" not in str(error.value)


@dataclass
class Entry:
    """An input as onnxruntime describes one."""

    shape: list
    type: str = "tensor(float)"
    name: str = "x"
    metadata: dict = field(default_factory=dict)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (Entry(["N", 3, 224, 224]), (False, 224, 224, "float32", None)),
        (Entry([4, 96, 128, 3], "tensor(uint8)"), (True, 96, 128, "uint8", 4)),
        (Entry([None, 3, None, None], "tensor(float16)"), (False, 224, 224, "float16", None)),
        (Entry(["N", 3, "H", "W"], metadata={"image_size": "64"}), (False, 64, 64, "float32", None)),
    ],
)
def test_layout_size_and_type_are_read_from_the_model(tmp_path, entry, expected):
    spec = read_input(tmp_path, [entry], entry.metadata)
    assert (spec.channels_last, spec.height, spec.width, spec.dtype, spec.batch) == expected


@pytest.mark.parametrize(("spec", "package"), [("onnx:m.onnx", "onnxruntime"), ("timm:resnet18", "timm")])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, spec, package):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"needs {package}; install it with `pip install 'srood\\["):
        open_embedder(spec)


def test_timm_gives_the_features_before_the_classifier(monkeypatch):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **more: original(name, **more))
    embedder = open_embedder("timm:test_resnet")
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    vectors = embedder.embed(images).vectors
    assert vectors.shape == (5, original("test_resnet").num_features)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(embedder.embed(images[2:3]).vectors[0], vectors[2])
    assert embedder.name == "timm:test_resnet"
    assert open_embedder("timm:test_resnet").fingerprint != embedder.fingerprint  # other (random) weights


def test_timm_errors(monkeypatch):
    timm = pytest.importorskip("timm")
    with pytest.raises(InputError, match="--embedder timm:nonsense: timm knows no such model"):
        open_embedder("timm:nonsense")

    def no_network(*_, **__):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(InputError, match=r"its weights cannot be had \(OSError: no route to host\); check") as error:
        open_embedder("timm:resnet18")
    assert "\n" not in str(error.value)


def test_values_that_are_not_finite_are_refused(monkeypatch, images):
    monkeypatch.setattr("curate.embedders.open_onnx", lambda path: (lambda rows: np.full((len(rows), 2), np.nan), "x"))
    with pytest.raises(InputError, match="gives values that are not finite"):
        open_embedder("onnx:m.onnx").embed(images)


def test_padding_is_not_seen():
    seen = []

    def forward(rows):
        seen.append(rows.shape)
        return rows.reshape(len(rows), -1)[:, :2].astype(np.float32)

    images = np.arange(10 * 12, dtype=np.uint8).reshape(10, 2, 2, 3)
    found = pretrained.in_batches(forward, 4)(images)
    assert np.array_equal(found, images.reshape(10, -1)[:, :2]) and seen == [(4, 2, 2, 3)] * 3


def test_mobilenet_of_the_shared_data(srood_data):
    pytest.importorskip("onnxruntime")
    path = srood_data / "models" / "mobilenet-v1-imagenet-embed.onnx"
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    vectors = open_embedder(f"onnx:{path}").embed(images).vectors
    assert vectors.shape == (3, 1024) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
