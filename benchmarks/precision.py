"""Images a second in float32 and in bfloat16 autocast, in both memory formats: the evidence for `--precision auto`.

    python benchmarks/precision.py --model resnet20 --model wrn-40-2

Each combination takes training steps (forward, backward, SGD) on the same random images, in rounds one after the other.
Ratios to float32 in the usual format come first: the median over the rounds, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from srood.models import build_model
from srood.precision import computes_bf16
from train.devices import describe_device, make_fabric, resolve_device

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
KINDS = [(precision, form) for precision in ("32-true", "bf16-mixed") for form in FORMATS]


def seconds(model_name: str, precision: str, form: str, device: torch.device, batch: int, steps: int) -> float:
    """Time of `steps` training steps after one to warm up."""
    fabric = make_fabric(device, precision)
    model = build_model(model_name, 10).to(memory_format=FORMATS[form])  # type: ignore[call-overload]
    network, optimiser = fabric.setup(model, torch.optim.SGD(model.parameters(), 0.001, 0.9, nesterov=True))
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=FORMATS[form])
    y = torch.randint(0, 10, (batch,), device=device)
    start = 0.0
    for step in range(steps + 1):
        if step == 1:
            start = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(network(x), y)
        optimiser.zero_grad()
        fabric.backward(loss)
        optimiser.step()
        loss.item()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="repeat for more; default: resnet20")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    print(f"{describe_device(device)}, {torch.get_num_threads()} threads")
    print(f"instructions for bfloat16: {'yes' if computes_bf16(device) else 'no'}")
    print(f"{'':<40}ratio to 32-true, contiguous    images/s")
    document = []
    for name in arguments.model or ["resnet20"]:
        rates: dict[tuple[str, str], list[float]] = {kind: [] for kind in KINDS}
        for _ in range(arguments.rounds):
            for kind in KINDS:
                took = seconds(name, *kind, device, arguments.batch_size, arguments.steps)
                rates[kind].append(arguments.steps * arguments.batch_size / took)
        for (precision, form), values in rates.items():
            ratios = [a / b for a, b in zip(values, rates[KINDS[0]], strict=True)]
            middle = statistics.median(ratios)
            print(
                f"{name:<14}{precision:<12}{form:<14}{middle:6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
                f"{statistics.median(values):14,.0f}"
            )
            document.append({"model": name, "precision": precision, "format": form, "ratio": middle, "rates": values})
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
