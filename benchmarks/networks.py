"""How fast `srood train` tunes each network, as a share of what the device can do, and how long ten epochs take.

Part of `benchmarks/training.py --models`. The peak is measured: a large matrix product and a 3x3 convolution in the
precision of training; the faster counts. The operations of a network are those of forward and backward pass, counted by
torch.utils.flop_counter (two for a multiplication and an addition, matrix products and convolutions alone).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from srood.models import build_model
from train.steps import memory_format

EPOCHS = 10
METHODS = {"SR": (128, 0), "SROE": (128, 256)}  # ID images and outliers of a step


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def operations(model_name: str, classes: int) -> float:
    """Floating-point operations of an image of 32x32 pixels, forward and backward."""
    model, x = build_model(model_name, classes).train(), torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        logits, features = model(x, return_features=True)
        (logits.sum() + features.sum()).backward()
    return counter.get_total_flops() / len(x)


def peak(device: torch.device, precision: str, seconds: float = 0.3) -> dict[str, float]:
    """Operations a second of a matrix product and of a convolution, the best of five times."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    size, batch, channels = (8192, 512, 256) if device.type == "cuda" else (1024, 32, 64)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(batch, channels, 32, 32, device=device, dtype=dtype).to(memory_format=memory_format(device))
    kernel = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).to(memory_format=memory_format(device))
    work: dict[str, tuple[Callable[[], Any], float]] = {
        "matrix product": (lambda: a @ b, 2.0 * size**3),
        "convolution": (
            lambda: torch.nn.functional.conv2d(x, kernel, padding=1),
            2.0 * batch * 32 * 32 * channels**2 * 9,
        ),
    }
    return {name: max(_rate(run, count, device, seconds / 5) for _ in range(5)) for name, (run, count) in work.items()}


def _rate(run: Callable[[], Any], count: float, device: torch.device, seconds: float) -> float:
    run()
    wait(device)
    started, runs = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(10 if device.type == "cuda" else 1):
            run()
            runs += 1
        wait(device)
    return runs * count / (time.perf_counter() - started)


def measure_networks(
    contender: Callable[..., Callable[[int], float]],
    models: list[str],
    classes: int,
    count: int,
    steps: int,
    rounds: int,
    epochs: int | None,
) -> list[dict[str, Any]]:
    """Images a second and seconds of ten epochs of each network, by SR and by SROE.

    Args:
        contender: for a network's name and a method, what takes so many steps and returns images a second
        models: names of networks
        classes, count: of the ID set
        steps, rounds: of the measurement
        epochs: run so many epochs in full; None: extrapolate ten from the steps
    """
    found = []
    for name in models:
        flops = operations(name, classes)
        for method, (of_id, of_outliers) in METHODS.items():
            take = contender(name, method)
            take(min(steps, 3))  # warms up, and compiles
            epoch_steps = -(-count // of_id)
            images = (epochs or EPOCHS) * (count + of_outliers * epoch_steps)
            rates = [take(epochs * epoch_steps)] if epochs else [take(steps) for _ in range(rounds)]
            found.append(
                {"model": name, "method": method, "images_per_second": rates, "operations_per_image": flops}
                | {"epochs": epochs or EPOCHS, "in_full": bool(epochs), "seconds": images / statistics.median(rates)}
            )
    return found


def print_networks(found: list[dict[str, Any]], peaks: dict[str, float]) -> None:
    """A line each, the share of the peak first."""
    best = max(peaks.values())
    print("peak: " + ", ".join(f"{name} {rate / 1e12:,.3g} TFLOP/s" for name, rate in peaks.items()))
    epochs = f"{found[0]['epochs']} epochs" + ("" if found[0]["in_full"] else ", extrapolated")
    print(f"{'':<20}{'share of the peak':>18}{'images/s':>30}{epochs:>28}")
    for entry in found:
        rates = entry["images_per_second"]
        middle = statistics.median(rates)
        entry["share_of_peak"] = middle * entry["operations_per_image"] / best
        speed = f"{middle:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        print(f"{entry['model']:<14}{entry['method']:<6}{entry['share_of_peak']:>17.1%} {speed:>30}", end="")
        print(f"{entry['seconds']:>26,.1f} s")
