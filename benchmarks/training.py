"""What a step of SR and of SROE costs beside cross entropy, and how fast tuning is beside a plain training loop.

    python benchmarks/training.py --model resnet20

Ratios come first. In every round each contender takes the same number of steps, one after the other, so that a slower
or busier minute meets all of them; a figure is the median over the rounds, with the smallest and the largest.

The plain loop is what one would write without this package: a Dataset of PIL images, torchvision's transforms (flip,
crop with padding 4, to tensor, normalise), a DataLoader, float32, the same network, optimiser and loss. It runs with
no worker processes and with two; the faster counts.

    python benchmarks/training.py --device cuda --models wrn-40-2 resnet18 --epochs 10 --compile

adds each network's speed by SR and by SROE, as a share of what the device can do, and the seconds of ten epochs, run in
full with --epochs, else extrapolated from --rounds of --steps. On a GPU all networks are measured where none are named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import METHODS, measure_networks, peak, print_networks, wait
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from srood.datasets import dataset_info, id_specs, load_images
from srood.models import MODELS, build_model
from train.config import TuneConfig
from train.devices import describe_device, make_fabric, resolve_device, resolve_precision
from train.loop import FETCH_EVERY
from train.plan import Plan
from train.steps import Stepper
from train.training_images import TrainingImages

Contender = Callable[[int], float]  # takes so many steps, returns images a second


def ours(arguments: argparse.Namespace, data: TrainingImages, precision: str, **settings: Any) -> Contender:
    """Steps of `srood train`: batches, augmentation, forward, backward, optimiser."""
    options = {"model": arguments.model, "method_options": settings.pop("options", {})}
    config = TuneConfig(**{**options, **settings})
    device = resolve_device(arguments.device)
    fabric = make_fabric(device, resolve_precision(precision, device))
    info = dataset_info(arguments.id)
    scaling = (info.mean, info.std) if info and info.mean and info.std else ((0.5,) * 3, (0.25,) * 3)
    with_outliers = data if config.outliers else TrainingImages(data.images, data.labels)
    model = build_model(config.model, int(data.labels.max()) + 1)
    stepper = Stepper(fabric, config, with_outliers, model, scaling)
    plan: Plan = with_outliers.plan(config)
    taken = 0

    def take(steps: int) -> float:
        nonlocal taken
        torch.backends.cudnn.deterministic = True  # as `srood train` has it
        images, start = 0, time.perf_counter()
        for step in range(taken, taken + steps):
            rows = plan.rows(step)
            numbers = stepper.take(step, rows, 0.001)
            if (step + 1) % FETCH_EVERY == 0:
                numbers.fetched()
            images += len(rows.id) + len(rows.outliers)
        wait(device)
        taken += steps
        return images / (time.perf_counter() - start)

    return take


class Pictures(Dataset):
    """ID images one at a time, as a plain loop would read them."""

    def __init__(self, data: TrainingImages) -> None:
        from torchvision import transforms

        self.pictures = [Image.fromarray(image) for image in data.images.numpy()]
        self.labels = data.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomCrop(data.images.shape[1], padding=4),
                transforms.ToTensor(),
                transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[row]), self.labels[row]


def plain(arguments: argparse.Namespace, data: TrainingImages, workers: int) -> Contender:
    """The loop one would write: float32, a DataLoader, cross entropy and the L1 norm of the features."""
    device = resolve_device(arguments.device)
    model = build_model(arguments.model, int(data.labels.max()) + 1).to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), 0.001, 0.9, weight_decay=5e-4, nesterov=True)
    loader = DataLoader(Pictures(data), 128, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    batches = endless()

    def take(steps: int) -> float:
        torch.backends.cudnn.deterministic = False
        images, start = 0, time.perf_counter()
        for _ in range(steps):
            x, y = (part.to(device) for part in next(batches))
            logits, features = model(x, return_features=True)
            loss = torch.nn.functional.cross_entropy(logits, y) + 0.02 * features.abs().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
            images += len(y)
        wait(device)
        return images / (time.perf_counter() - start)

    return take


def measure(contenders: dict[str, Contender], steps: int, rounds: int) -> dict[str, list[float]]:
    """Images a second of each contender in each round; a round before them warms up."""
    for take in contenders.values():
        take(min(steps, 3))
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            rates[name].append(contenders[name](steps))
    return rates


def ratio(over: list[float], under: list[float]) -> dict[str, float]:
    """Median, smallest and largest of a ratio taken round by round."""
    values = [a / b for a, b in zip(over, under, strict=True)]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def load(arguments: argparse.Namespace) -> TrainingImages:
    """ID images, and as many outliers: the ID images upside down, as only their number matters here."""
    images = load_images(id_specs(arguments.id)[0], 32)
    pixels = torch.from_numpy(images.images)
    return TrainingImages(
        pixels, torch.from_numpy(images.labels), [torch.from_numpy(np.ascontiguousarray(images.images[:, ::-1]))]
    )


def _batch(method: str) -> str:
    of_id, of_outliers = METHODS[method]
    return f"{method} {of_id} + {of_outliers} images" if of_outliers else f"{method} {of_id} images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--id", default="cifar10")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=20, help="steps of each contender a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="*", help="also measure these networks; on a GPU by default all")
    parser.add_argument("--epochs", type=int, help="with --models: run so many epochs in full")
    parser.add_argument("--compile", action="store_true", help="with --models: compile the networks")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    data, device = load(arguments), resolve_device(arguments.device)
    models = arguments.models if arguments.models is not None else list(MODELS) if device.type == "cuda" else []
    auto = resolve_precision("auto", device)

    outliers = {"outliers": ("made-up",), "method": "sroe", "options": {"alpha": 0.02, "beta": 0.5}}
    costs = {
        "cross entropy, 128 images": ours(arguments, data, auto, method="ce"),
        "SR, 128 images": ours(arguments, data, auto, method="sr", options={"alpha": 0.02}),
        "cross entropy, 384 images": ours(arguments, data, auto, method="ce", batch_size=384),
        "SROE, 128 + 256 images": ours(arguments, data, auto, **outliers),
    }
    loops = {
        "srood train (SR)": ours(arguments, data, auto, method="sr", options={"alpha": 0.02}),
        "srood train (SR), 32-true": ours(arguments, data, "32-true", method="sr", options={"alpha": 0.02}),
        "plain loop, no workers": plain(arguments, data, 0),
        "plain loop, 2 workers": plain(arguments, data, 2),
    }
    rates = measure(costs, arguments.steps, arguments.rounds) | measure(loops, arguments.steps, arguments.rounds)
    best = max((name for name in loops if name.startswith("plain")), key=lambda name: statistics.median(rates[name]))
    ratios = {
        "cost of a step, SR / cross entropy": ratio(rates["cross entropy, 128 images"], rates["SR, 128 images"]),
        "cost of a step, SROE / cross entropy over as many images": ratio(
            rates["cross entropy, 384 images"], rates["SROE, 128 + 256 images"]
        ),
        f"speed, srood train / {best}": ratio(rates["srood train (SR)"], rates[best]),
        f"speed in float32, srood train / {best}": ratio(rates["srood train (SR), 32-true"], rates[best]),
    }
    print(f"{arguments.model} on {arguments.id}, {describe_device(device)}, {torch.get_num_threads()} threads, {auto};")
    print(f"{arguments.rounds} rounds of {arguments.steps} steps: median (smallest to largest)\n")
    for name, r in ratios.items():
        print(f"{name:<62}{r['median']:6.3f}  ({r['min']:.3f} to {r['max']:.3f})")
    print()
    for name, values in rates.items():
        print(f"{name:<46}{statistics.median(values):8,.0f} images/s  ({min(values):,.0f} to {max(values):,.0f})")
    found, peaks = [], {}
    if models:
        classes, compiled = int(data.labels.max()) + 1, ", compiled" if arguments.compile else ""
        print(f"\nnetworks, {describe_device(device)}, {auto}{compiled}; {', '.join(map(_batch, METHODS))}")
        methods = {"SR": {"method": "sr", "options": {"alpha": 0.02}}, "SROE": outliers}

        def network(model: str, method: str) -> Contender:
            settings = {**methods[method], "model": model, "compile": arguments.compile}
            return ours(arguments, data, auto, **settings)

        sizes = arguments.steps, arguments.rounds, arguments.epochs
        found = measure_networks(network, models, classes, len(data.images), *sizes)
        peaks = peak(device, auto)
        print_networks(found, peaks)
    if arguments.json:
        document = {"model": arguments.model, "device": describe_device(device), "precision": auto}
        document |= {"steps": arguments.steps, "ratios": ratios, "images_per_second": rates}
        document |= {"networks": found, "peak": peaks, "compiled": arguments.compile}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
