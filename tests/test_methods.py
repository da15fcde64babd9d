"""Every training method against NumPy by hand, finite differences and pytorch-ood called directly."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from srood.errors import InputError
from srood.methods import METHODS, find_method, make_loss, resolve_options

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"

# Values unlike the defaults, chosen so that hinges are active for some images of `case` and inactive for others.
OPTIONS = {
    "sr": {"alpha": 0.3},
    "sroe": {"alpha": 0.3, "beta": 0.7, "outlier_sparsity": 1},
    "ce": {},
    "oe": {"beta": 0.7},
    "energy": {"beta": 0.3, "m_in": -2.0, "m_out": -1.0},
    "oecc": {"lambda_1": 0.01, "lambda_2": 0.02, "accuracy": 0.8},
    "entropic": {},
    "objectosphere": {"alpha": 0.2, "xi": 2.0},
    "logitnorm": {"temperature": 0.3},
}

every_method = pytest.mark.parametrize("name", METHODS)
with_outliers = pytest.mark.parametrize("name", [m.name for m in METHODS.values() if m.outliers])
without_outliers = pytest.mark.parametrize("name", [m.name for m in METHODS.values() if not m.outliers])


@pytest.fixture
def float64():
    """pytorch-ood computes in torch's default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def case(rows=9, classes=4, width=5):
    """Logits and features of 3 ID images and the rest outliers, and labels, in float64."""
    rng = np.random.default_rng(7)
    logits, features = 2 * rng.normal(size=(rows, classes)), rng.normal(size=(rows, width))
    return torch.tensor(logits), torch.tensor(features), torch.tensor([0, 3, 1])


def by_hand(name, logits, features, labels, o):
    """The loss and its own terms, from the formulas of docs/methods.md."""
    z, features, labels = logits.numpy(), features.numpy(), labels.numpy()
    n, rows, classes = len(labels), len(z), z.shape[1]
    lse = np.log(np.exp(z).sum(1))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    ce = np.mean(lse[:n] - z[np.arange(n), labels])
    l1 = np.mean(np.abs(features[:n]).sum(1))
    oe = np.mean(lse[n:] - z[n:].mean(1))
    terms = {"cross_entropy": ce, "sparsity": l1}
    if name == "ce":
        return ce, terms
    if name == "sr":
        return ce + o["alpha"] * l1, terms
    if name == "sroe":
        l1 = np.mean(np.abs(features).sum(1)) if o["outlier_sparsity"] else l1
        return ce + o["alpha"] * l1 + o["beta"] * oe, {**terms, "sparsity": l1, "outlier_exposure": oe}
    if name == "oe":
        return ce + o["beta"] * oe, {**terms, "outlier_exposure": oe}
    if name == "energy":
        inner, outer = np.maximum(0, -lse[:n] - o["m_in"]) ** 2, np.maximum(0, o["m_out"] + lse[n:]) ** 2
        assert all(0 < np.count_nonzero(hinge) < len(hinge) for hinge in (inner, outer))
        own = {"energy_id": inner.mean(), "energy_outliers": outer.mean()}
        return ce + o["beta"] * sum(own.values()), {**terms, **own}
    if name == "oecc":
        confidence = 128 / n * sum((max(row) - o["accuracy"]) ** 2 for row in p[:n])
        uniformity = 256 / (rows - n) * sum(abs(value - 1 / classes) for row in p[n:] for value in row)
        own = {"confidence": confidence, "uniformity": uniformity}
        return ce + o["lambda_1"] * confidence + o["lambda_2"] * uniformity, {**terms, **own}
    entropic = (n * ce + (rows - n) * oe) / rows
    if name == "entropic":
        return entropic, {**terms, "outlier_exposure": oe}
    if name == "objectosphere":
        norm = np.sqrt((features**2).sum(1))
        hinge = np.maximum(0, o["xi"] - norm[:n]) ** 2
        assert 0 < np.count_nonzero(hinge) < n
        magnitude = (hinge.sum() + (norm[n:] ** 2).sum()) / rows
        return entropic + o["alpha"] * magnitude, {**terms, "outlier_exposure": oe, "magnitude": magnitude}
    assert name == "logitnorm"
    unit = z[:n] / np.sqrt((z[:n] ** 2).sum(1, keepdims=True)) / o["temperature"]
    normed = np.mean(np.log(np.exp(unit).sum(1)) - unit[np.arange(n), labels])
    return normed, {**terms, "logit_norm": normed}


@every_method
def test_the_loss_and_its_terms_against_numpy(name, float64):
    loss = make_loss(name, OPTIONS[name])(*case())
    total, terms = by_hand(name, *case(), OPTIONS[name])
    # LogitNorm adds 1e-7 to the norm
    rel = 1e-6 if name == "logitnorm" else 1e-12
    assert loss.total.item() == pytest.approx(total, rel=rel)
    assert {key: value.item() for key, value in loss.terms.items()} == pytest.approx(terms, rel=rel)


@every_method
def test_gradients_against_finite_differences(name, float64):
    loss_of, inputs, labels = make_loss(name, OPTIONS[name]), case()[:2], case()[2]
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    loss_of(*leaves, labels).total.backward()
    step = 1e-6
    for which, leaf in enumerate(leaves):
        analytic = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        numeric = torch.empty_like(inputs[which])
        for i in range(numeric.numel()):
            ends = []
            for sign in (1, -1):
                moved = [tensor.clone() for tensor in inputs]
                moved[which].view(-1)[i] += sign * step
                ends.append(loss_of(*moved, labels).total.item())
            numeric.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
        assert torch.allclose(analytic, numeric, rtol=1e-6, atol=1e-8)


@every_method
def test_the_same_images_twice_and_in_another_order_give_the_same_loss(name, float64):
    """So that no weight depends on the size of the batch."""
    logits, features, labels = case()
    rows = torch.tensor([2, 0, 1, 1, 0, 2, 8, 3, 5, 4, 7, 6, 3, 4, 5, 6, 7, 8])  # ID images first
    loss_of = make_loss(name, OPTIONS[name])
    twice = loss_of(logits[rows], features[rows], labels[rows[:6]]).total
    assert twice.item() == pytest.approx(loss_of(logits, features, labels).total.item(), rel=1e-12)


@without_outliers
def test_methods_without_outliers_do_not_look_at_them(name, float64):
    logits, features, labels = case()
    logits.requires_grad_()
    loss_of = make_loss(name, OPTIONS[name])
    loss = loss_of(logits, features, labels)
    alone = loss_of(logits[:3], features[:3], labels)
    assert torch.equal(loss.total, alone.total)
    assert loss.terms == alone.terms
    loss.total.backward()
    assert logits.grad is not None
    assert logits.grad[:3].abs().min() > 0
    assert torch.equal(logits.grad[3:], torch.zeros(6, 4))


@with_outliers
def test_methods_with_outliers_learn_from_them_and_refuse_to_do_without(name, float64):
    logits, features, labels = case()
    logits.requires_grad_()
    loss_of = make_loss(name, OPTIONS[name])
    loss_of(logits, features, labels).total.backward()
    assert logits.grad is not None
    assert logits.grad[3:].abs().sum() > 0
    with pytest.raises(ValueError, match=f"method {name}: 3 rows of logits for 3 labels leave no outliers"):
        loss_of(logits[:3], features[:3], labels)


@every_method
def test_sparsity_is_learnt_from_by_sr_and_sroe_only(name):
    logits, features, labels = (tensor.float() if tensor.is_floating_point() else tensor for tensor in case())
    features.requires_grad_()
    term = make_loss(name, OPTIONS[name])(logits.requires_grad_(), features, labels).terms["sparsity"]
    assert term.requires_grad == (name in ("sr", "sroe"))


@every_method
def test_half_precision_under_autocast_is_computed_in_float32(name):
    logits, features = (tensor.bfloat16() for tensor in case()[:2])
    labels = case()[2]
    with torch.autocast("cpu", torch.bfloat16):
        loss = make_loss(name, OPTIONS[name])(logits, features, labels)
    total, terms = by_hand(name, logits.double(), features.double(), labels, OPTIONS[name])
    assert {value.dtype for value in (loss.total, *loss.terms.values())} == {torch.float32}
    assert loss.total.item() == pytest.approx(total, rel=2e-6)
    assert {key: value.item() for key, value in loss.terms.items()} == pytest.approx(terms, rel=2e-6)


def pytorch_ood_loss(name, logits, features, targets, o):
    from pytorch_ood import loss

    if name == "energy":
        return loss.EnergyRegularizedLoss(o["beta"], o["m_in"], o["m_out"])(logits, targets)
    if name == "entropic":
        return loss.EntropicOpenSetLoss()(logits, targets)
    if name == "objectosphere":
        return loss.ObjectosphereLoss(o["alpha"], o["xi"])(logits, features, targets)
    if name == "logitnorm":
        return loss.LogitNorm(o["temperature"])(logits[targets >= 0], targets[targets >= 0])
    assert name == "oe"  # a mean over both; with as many outliers as ID images half of the sum of the means
    return 2 * loss.OutlierExposureLoss(o["beta"])(logits, targets)


@pytest.mark.parametrize("name", ["oe", "energy", "entropic", "objectosphere", "logitnorm"])
def test_pytorch_ood_called_directly_gives_the_same(name, float64):
    logits, features, labels = case(rows=6)
    targets = torch.tensor([0, 3, 1, -1, -1, -1])
    expected = pytorch_ood_loss(name, logits, features, targets, OPTIONS[name])
    assert make_loss(name, OPTIONS[name])(logits, features, labels).total.item() == pytest.approx(expected.item())


def test_sroe_without_its_sparsity_term_is_outlier_exposure(float64):
    sroe = make_loss("sroe", {"alpha": 0, "beta": 0.7})(*case())
    assert sroe.total.item() == pytest.approx(make_loss("oe", {"beta": 0.7})(*case()).total.item(), rel=1e-12)


def test_oecc_at_its_authors_batch_sizes_is_their_sum():
    """Written as they write it: sums over 128 ID images and 256 outliers, weights 0.07 and 0.05, CIFAR-10."""
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(384, 10, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 10, (128,), generator=generator)
    p = z.softmax(1)
    expected = torch.nn.functional.cross_entropy(z[:128], labels)
    expected += 0.07 * torch.sum((p.max(1).values[:128] - 0.9486) ** 2)
    expected += 0.05 * torch.sum(torch.abs(p[128:] - 0.1))
    loss = make_loss("oecc", classes=10)(z, torch.zeros(384, 2, dtype=torch.float64), labels)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-12)


PUBLISHED = {
    "sr": {"alpha": 0.02},
    "sroe": {"alpha": 0.02, "beta": 0.5, "outlier_sparsity": 0},
    "ce": {},
    "oe": {"beta": 0.5},
    "energy": {"beta": 0.1, "m_in": -23, "m_out": -5},
    "oecc": {"lambda_1": 0.07, "lambda_2": 0.05, "accuracy": 0.9486},
    "entropic": {},
    "objectosphere": {"alpha": 0.0001, "xi": 50},
    "logitnorm": {"temperature": 0.04},
}
PUBLISHED_FOR_100 = {"energy": {"m_in": -27}, "oecc": {"accuracy": 0.7573}}


@every_method
def test_defaults_are_the_published_ones_and_are_used(name, float64):
    assert resolve_options(name, classes=10) == PUBLISHED[name]
    assert resolve_options(name, classes=100) == PUBLISHED[name] | PUBLISHED_FOR_100.get(name, {})
    explicit = make_loss(name, PUBLISHED[name])(*case())
    assert torch.equal(make_loss(name, classes=10)(*case()).total, explicit.total)


@pytest.mark.parametrize("name, option", [("energy", "m_in"), ("oecc", "accuracy")])
def test_options_that_depend_on_the_id_set_have_no_default_for_another(name, option):
    with pytest.raises(InputError, match=f"--method-option {option}: .* 10 .* and 100 .* not for 37; give yours"):
        make_loss(name, classes=37)
    with pytest.raises(InputError, match="not for an unknown number"):
        make_loss(name)
    assert resolve_options(name, {option: "-8" if option == "m_in" else 0.9}, classes=37)[option] in (-8, 0.9)


def test_unknown_methods_and_options_are_named_with_what_there_is():
    assert find_method("oe").title == "outlier exposure"
    with pytest.raises(InputError, match="--method srr: .*sr, sroe, ce, oe, energy, oecc"):
        find_method("srr")
    with pytest.raises(InputError, match="--method srr"):
        make_loss("srr")
    with pytest.raises(InputError, match="--method-option temprature: method logitnorm .* options: temperature"):
        make_loss("logitnorm", {"temprature": 0.1})
    with pytest.raises(InputError, match="--method-option beta: method ce .* options: none"):
        make_loss("ce", {"beta": 0.1})


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("sr", {"alpha": "much"}, "alpha=much: is not a number"),
        ("sr", {"alpha": -0.1}, "alpha=-0.1: must not be negative"),
        ("oe", {"beta": float("nan")}, "beta=nan: must be finite"),
        ("sroe", {"outlier_sparsity": 0.5}, "outlier_sparsity=0.5: must be 0 .* or 1"),
        ("logitnorm", {"temperature": 0}, "temperature=0: must be above 0"),
        ("oecc", {"accuracy": 94.86}, "accuracy=94.86: must be a share from 0 to 1"),
        ("objectosphere", {"xi": -1}, "xi=-1: must not be negative"),
        ("energy", {"m_in": 23, "m_out": 5}, "m_in=23: lies above m_out=5"),
    ],
)
def test_impossible_values_are_refused_by_name(name, options, message):
    with pytest.raises(InputError, match=f"^--method-option {message}"):
        make_loss(name, options)


def test_pytorch_ood_is_imported_only_when_a_loss_needs_it():
    code = (
        "import sys; from srood.methods import make_loss; make_loss('sroe'); assert 'pytorch_ood' not in sys.modules; "
        "make_loss('oe'); assert 'pytorch_ood' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@every_method
def test_the_page_lists_every_method_with_its_defaults(name):
    page = PAGE.read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    assert rows, f"docs/methods.md has no row for {name}"
    stated = set(re.findall(r"`(\w+=-?[\d.]+)`", " ".join(rows)))
    expected = set()
    for key, default in METHODS[name].options.items():
        values = default.values() if isinstance(default, dict) else [default]
        expected |= {f"{key}={value}" for value in values}
    assert stated == expected
    number = re.search(r"arXiv (\S+)", METHODS[name].source)
    assert number is None or number[1] in " ".join(rows)
