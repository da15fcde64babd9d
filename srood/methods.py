"""The training methods by name, with their options and published defaults: SR and SROE, and what they compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from srood import baselines
from srood.errors import InputError
from srood.losses import ALPHA, BETA, Loss, LossParts, ce_loss, sr_loss, sroe_loss

OPTION = "--method-option"  # as the command line writes it


@dataclass(frozen=True)
class Method:
    """A training loss with a name.

    `options` has the default of each of its weights: a number, or numbers by the count of ID classes where the
    published value depends on the ID set (10: CIFAR-10, 100: CIFAR-100).
    """

    name: str
    title: str  # for people
    outliers: bool  # whether it needs outliers
    options: Mapping[str, float | Mapping[int, float]]
    source: str
    build: Callable[..., Loss]  # keywords: the options


def _with_weights(loss: Callable[..., LossParts]) -> Callable[..., Loss]:
    return lambda **weights: partial(loss, **weights)


_PAPER = "Scientific Reports 14:28444 (2024)"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("sr", "sparsity regularisation", False, {"alpha": ALPHA}, _PAPER, _with_weights(sr_loss)),
        Method(
            "sroe",
            "sparsity regularisation with outlier exposure",
            True,
            {"alpha": ALPHA, "beta": BETA, "outlier_sparsity": 0},
            _PAPER,
            _with_weights(sroe_loss),
        ),
        Method("ce", "cross entropy alone, the control", False, {}, "the loss of pretraining", lambda: ce_loss),
        Method(
            "oe",
            "outlier exposure",
            True,
            {"beta": 0.5},
            "Hendrycks et al., ICLR 2019, arXiv 1812.04606",
            baselines.outlier_exposure,
        ),
        Method(
            "energy",
            "energy fine-tuning",
            True,
            {"beta": 0.1, "m_in": {10: -23, 100: -27}, "m_out": -5},
            "Liu et al., NeurIPS 2020, arXiv 2010.03759",
            baselines.energy,
        ),
        Method(
            "oecc",
            "outlier exposure with confidence control",
            True,
            {"lambda_1": 0.07, "lambda_2": 0.05, "accuracy": {10: 0.9486, 100: 0.7573}},
            "Papadopoulos et al., Neurocomputing 2021, arXiv 1906.03509",
            baselines.oecc,
        ),
        Method(
            "entropic",
            "entropic open-set loss",
            True,
            {},
            "Dhamija et al., NeurIPS 2018, arXiv 1811.04110",
            baselines.entropic_open_set,
        ),
        Method(
            "objectosphere",
            "objectosphere loss",
            True,
            {"alpha": 0.0001, "xi": 50},
            "Dhamija et al., NeurIPS 2018, arXiv 1811.04110",
            baselines.objectosphere,
        ),
        Method(
            "logitnorm",
            "logit normalisation",
            False,
            {"temperature": 0.04},
            "Wei et al., ICML 2022, arXiv 2205.09310",
            baselines.logit_norm,
        ),
    )
}


def find_method(name: str) -> Method:
    """Look a method up.

    Raises:
        InputError: there is none of that name; the message lists all.
    """
    if name not in METHODS:
        raise InputError(f"--method {name}: no such method; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def resolve_options(
    name: str, options: Mapping[str, float | str] | None = None, classes: int | None = None
) -> dict[str, float]:
    """Every option of a method: the given values, checked, and the defaults of the others.

    Args:
        name: of a method
        options: values by name; text is read as a number
        classes: the number of ID classes, on which some defaults depend

    Raises:
        InputError: no such method or option, a value that cannot be, or an option without a default for this number of
            classes.
    """
    method, given = find_method(name), dict(options or {})
    for key in given:
        if key not in method.options:
            names = ", ".join(method.options) or "none"
            raise InputError(f"{OPTION} {key}: method {name} has no such option; its options: {names}")
    values = {}
    for key, default in method.options.items():
        if key in given:
            values[key] = _number(key, given[key])
        elif not isinstance(default, Mapping):
            values[key] = float(default)
        elif classes is not None and classes in default:
            values[key] = float(default[classes])
        else:
            known = " and ".join(f"{count} ({value:g})" for count, value in default.items())
            raise InputError(
                f"{OPTION} {key}: method {name} has a published value only for {known} classes, not for "
                f"{'an unknown number' if classes is None else classes}; give yours as {OPTION} {key}=VALUE"
            )
    if values.get("m_in", -math.inf) > values.get("m_out", math.inf):
        raise InputError(
            f"{OPTION} m_in={values['m_in']:g}: lies above m_out={values['m_out']:g}; energies of ID images are the "
            "lower ones, so lower m_in or raise m_out"
        )
    return values


def make_loss(name: str, options: Mapping[str, float | str] | None = None, classes: int | None = None) -> Loss:
    """The loss of a method, as a function of logits (N + M, C), features (N + M, D) and labels (N,).

    The rows are N ID images followed by M outliers, of one forward pass; methods without outliers look at the first N
    only. The loss is computed in float32 or wider and has no state; it raises ValueError where the method needs
    outliers and there are none.

    Args:
        name: of a method
        options: values of its options; the others have their defaults
        classes: the number of ID classes C, on which some defaults depend

    Raises:
        InputError: see `resolve_options`.
    """
    values = resolve_options(name, options, classes)
    method = find_method(name)
    parts = method.build(**values)

    def loss(logits: Tensor, features: Tensor, labels: Tensor) -> LossParts:
        count = len(labels)
        if not method.outliers:
            return parts(logits[:count], features[:count], labels)
        if len(logits) <= count:
            raise ValueError(f"method {name}: {len(logits)} rows of logits for {count} labels leave no outliers")
        return parts(logits, features, labels)

    return loss


def _number(key: str, value: float | str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{OPTION} {key}={value}: is not a number") from None
    fault = None
    if not math.isfinite(number):
        fault = "must be finite"
    elif key in ("alpha", "beta", "lambda_1", "lambda_2", "xi") and number < 0:
        fault = "must not be negative"
    elif key == "temperature" and number <= 0:
        fault = "must be above 0"
    elif key == "accuracy" and not 0 <= number <= 1:
        fault = "must be a share from 0 to 1"
    elif key == "outlier_sparsity" and number not in (0, 1):
        fault = "must be 0 (ID images only) or 1 (ID images and outliers together)"
    if fault:
        raise InputError(f"{OPTION} {key}={value}: {fault}")
    return number
