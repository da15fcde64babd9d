"""The passes of one classifier over image sets, each made once: its outputs are cached in the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srood.errors import InputError
from srood.hashes import file_sha256
from srood.models.weights import Triple
from srood.odin import odin
from srood.progress import progress_bar
from train.batches import normalise
from train.evaluation.eval_images import ImageSet
from train.evaluation.output_cache import OutputCache
from train.evaluation.outputs import Outputs, code_hash, forward, forward_code
from train.evaluation.subject import Subject


class Passes:
    """Runs a classifier over whole image sets on one device.

    Args:
        subject: the classifier
        mean, std: normalisation of its images
        device, precision: resolved
        batch_size: images a forward pass
        cache: folder for outputs; None computes everything anew
    """

    def __init__(
        self,
        subject: Subject,
        mean: Triple,
        std: Triple,
        device: torch.device,
        precision: str,
        batch_size: int,
        cache: Path | None,
    ) -> None:
        self.subject = subject
        self.mean, self.std = mean, std
        self.device, self.precision, self.batch_size = device, precision, batch_size
        self.sha256 = file_sha256(subject.weights)
        self.cache = OutputCache(
            cache,
            {
                "weights": self.sha256,
                "model": subject.model,
                "mean": mean,
                "std": std,
                "precision": precision,
                "device": device.type,
                "code": forward_code(subject.classifier),
            },
        )

    def outputs(self, images: ImageSet) -> Outputs:
        """Logits and features of a set: from the cache, or by one forward pass.

        Raises:
            InputError: values that are not finite.
        """
        found = self._cached(images, "outputs", ("logits", "features"))
        if found is not None:
            return Outputs(found["logits"], found["features"])
        model = self.subject.classifier
        outputs = self._with_bar(
            images,
            images.name,
            lambda pixels, advance: forward(
                model, pixels, self.device, self.precision, self.mean, self.std, self.batch_size, advance
            ),
        )
        if not (torch.isfinite(outputs.logits).all() and torch.isfinite(outputs.features).all()):
            raise InputError(
                f"{self.subject.weights}: gives outputs that are not finite; use another checkpoint, or 32-true"
            )
        self.cache.store("outputs", images.images.fingerprint, outputs._asdict())
        return outputs

    def odin_scores(self, images: ImageSet) -> Tensor:
        """ODIN's scores of a set, (N,) float64: a pass of its own with gradients, always in float32."""
        kind = f"odin {code_hash(['srood.odin'], ['pytorch-ood'])}"  # its temperature and step are in the module
        found = self._cached(images, kind, ("scores",))
        if found is not None:
            return found["scores"]
        model = self.subject.classifier.to(self.device).eval()

        def run(pixels: np.ndarray, advance: Callable[[int], None]) -> Tensor:
            scores = []
            for start in range(0, len(pixels), self.batch_size):
                batch = torch.from_numpy(pixels[start : start + self.batch_size]).to(self.device)
                scores.append(odin(model, normalise(batch, self.mean, self.std), self.std).cpu())
                advance(len(batch))
            return torch.cat(scores)

        scores = self._with_bar(images, f"{images.name} (ODIN)", run)
        if not torch.isfinite(scores).all():
            raise InputError("score odin: is not finite; leave it out for this classifier")
        self.cache.store(kind, images.images.fingerprint, {"scores": scores})
        return scores

    def _cached(self, images: ImageSet, kind: str, names: tuple[str, ...]) -> dict[str, Tensor] | None:
        found = self.cache.load(kind, images.images.fingerprint)
        count = len(images.images.labels)
        if found is None or set(found) != set(names) or any(len(found[name]) != count for name in names):
            return None
        return found

    def _with_bar(self, images: ImageSet, title: str, run: Callable):
        with progress_bar() as progress:
            task = progress.add_task(title, total=len(images.images.labels), note="")
            return run(images.pixels(), lambda count: progress.advance(task, count))
