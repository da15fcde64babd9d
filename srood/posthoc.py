"""Scores from the literature that need more than the logits: the last layer, and most of them ID training images.

`POSTHOC` names them; `fit` turns one into a function of logits and features, as those of `srood.scores.SCORES` are, so
that one forward pass over a set of images serves all scores. Only the pooled features and the last layer are used, also
where a paper works on feature maps. Parameters are the published defaults. Larger = more OOD.

What cannot be had from pooled features is left out: Gram, RankFeat, NAC and MultiMahalanobis need the maps of other
layers, MCD needs dropout, MCM texts, and WeightedEBO weights from VOS training. ODIN is in `srood.odin`.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srood import distance_scores, posterior_scores, shaping_scores
from srood.errors import InputError
from srood.scores import ODIN, SCORES, Score

Builder = Callable[[nn.Linear, Tensor, Tensor, Tensor], Score]
CHUNK = 4096  # images scored at once, which bounds memory


@dataclass(frozen=True)
class Posthoc:
    """A post-hoc score: its title, where it is published, how it is built, and whether it needs ID images."""

    title: str
    source: str
    build: Builder
    fitted: bool = True


POSTHOC: dict[str, Posthoc] = {
    "entropy": Posthoc(
        "Entropy of the softmax", "Chan et al., ICCV 2021, arXiv:2012.06575", posterior_scores.entropy, fitted=False
    ),
    "gen": Posthoc("Generalised entropy (GEN)", "Liu et al., CVPR 2023", posterior_scores.gen, fitted=False),
    "gradnorm": Posthoc(
        "GradNorm of the last layer",
        "Huang et al., NeurIPS 2021, arXiv:2110.00218",
        posterior_scores.gradnorm,
        fitted=False,
    ),
    "temperature-scaling": Posthoc(
        "MSP at the calibrated temperature",
        "Guo et al., ICML 2017, arXiv:1706.04599",
        posterior_scores.temperature_scaling,
    ),
    "kl-matching": Posthoc(
        "KL-matching", "Hendrycks et al., ICML 2022, arXiv:1911.11132", posterior_scores.kl_matching
    ),
    "openmax": Posthoc("OpenMax", "Bendale and Boult, CVPR 2016, arXiv:1511.06233", posterior_scores.openmax),
    "react": Posthoc("ReAct", "Sun et al., NeurIPS 2021, arXiv:2111.12797", shaping_scores.react),
    "vra": Posthoc("VRA", "Xu et al., NeurIPS 2023, arXiv:2302.11716", shaping_scores.vra),
    "dice": Posthoc("DICE", "Sun and Li, ECCV 2022, arXiv:2111.09805", shaping_scores.dice),
    "ash-p": Posthoc("ASH-P", "Djurisic et al., ICLR 2023", shaping_scores.ash("ash-p"), fitted=False),
    "ash-b": Posthoc("ASH-B", "Djurisic et al., ICLR 2023", shaping_scores.ash("ash-b"), fitted=False),
    "ash-s": Posthoc("ASH-S", "Djurisic et al., ICLR 2023", shaping_scores.ash("ash-s"), fitted=False),
    "scale": Posthoc("SCALE", "Xu et al., ICLR 2024, arXiv:2310.00227", shaping_scores.scale, fitted=False),
    "lts": Posthoc(
        "Logit scaling (LTS)", "Djurisic et al., MVA 2025, arXiv:2409.01175", shaping_scores.lts, fitted=False
    ),
    "mahalanobis": Posthoc(
        "Mahalanobis distance", "Lee et al., NeurIPS 2018, arXiv:1807.03888", distance_scores.mahalanobis
    ),
    "rmd": Posthoc("Relative Mahalanobis distance (RMD)", "Ren et al., 2021, arXiv:2106.09022", distance_scores.rmd),
    "gmm": Posthoc("Gaussian mixture, one a class", "classical", distance_scores.gmm),
    "knn": Posthoc("k nearest neighbours", "Sun et al., ICML 2022, arXiv:2204.06507", distance_scores.knn),
    "nnguide": Posthoc(
        "Nearest-neighbour guidance (NNGuide)", "Park et al., ICCV 2023, arXiv:2309.14888", distance_scores.nnguide
    ),
    "she": Posthoc("Simplified Hopfield energy (SHE)", "Zhang et al., ICLR 2023", distance_scores.she),
    "vim": Posthoc("Virtual-logit matching (ViM)", "Wang et al., CVPR 2022, arXiv:2203.10807", distance_scores.vim),
    "fdbd": Posthoc(
        "Distance to the decision boundary (fDBD)", "Liu and Qin, ICML 2024, arXiv:2312.11536", distance_scores.fdbd
    ),
    "nci": Posthoc("Neural-collapse inspired (NCI)", "Liu and Qin, CVPR 2025, arXiv:2311.01479", distance_scores.nci),
    "pnml": Posthoc("pNML regret", "Bibas et al., NeurIPS 2021, arXiv:2110.09246", distance_scores.pnml),
}


def choose(names: Sequence[str]) -> list[str]:
    """The names of scores that ``--score`` stands for, in the order given, each once.

    Args:
        names: names, also several in one with commas between; ``default`` for all of `srood.scores.SCORES` and
            ``all`` for these, ODIN and all of `POSTHOC`. None at all is ``default``.

    Raises:
        InputError: an unknown name; the message has those most like it.
    """
    every = [*SCORES, ODIN, *POSTHOC]
    chosen: list[str] = []
    for name in [part.strip() for text in names or ["default"] for part in text.split(",")]:
        if name == "all":
            chosen += every
        elif name == "default":
            chosen += SCORES
        elif name in every:
            chosen.append(name)
        else:
            near = difflib.get_close_matches(name, every, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(every)}, default, all"
            raise InputError(f"--score {name}: is unknown; {hint}")
    return list(dict.fromkeys(chosen))


def needs_id_images(names: Sequence[str]) -> bool:
    """Whether any of these scores must be fitted to logits, features and labels of ID training images."""
    return any(name in POSTHOC and POSTHOC[name].fitted for name in names)


def fit(
    name: str,
    last_layer: nn.Linear,
    logits: Tensor | None = None,
    features: Tensor | None = None,
    labels: Tensor | None = None,
) -> Score:
    """Fit a post-hoc score. The same inputs give the same score, bit for bit on the same machine.

    Args:
        name: a key of `POSTHOC`
        last_layer: D features to C logits; copied
        logits: (N, C) floating point, of ID training images; may be left out where ``POSTHOC[name].fitted`` is False
        features: (N, D) floating point, their pooled features
        labels: (N,) int64, in [0, C)

    Returns:
        a function from logits (B, C) and features (B, D), any floating type, to (B,) float64; larger = more OOD. It
        raises InputError where a score is not finite.

    Raises:
        InputError: unknown name, or a score that cannot be fitted to these images (the message names it).
        ValueError: shapes that do not match, or labels that are no classes.
    """
    if name not in POSTHOC:
        raise InputError(f"score {name!r} is unknown; choose one of {', '.join(POSTHOC)}")
    head = copy.deepcopy(last_layer).cpu().double().requires_grad_(False)
    if head.bias is None:
        head.bias = nn.Parameter(torch.zeros(head.out_features, dtype=torch.float64), requires_grad=False)
    if logits is None or features is None or labels is None:
        logits, features = torch.empty(0, head.out_features), torch.empty(0, head.in_features)
        labels = torch.empty(0, dtype=torch.int64)
    count = len(labels)
    if POSTHOC[name].fitted and not count:
        raise InputError(f"score {name}: needs logits, features and labels of ID training images")
    if logits.shape != (count, head.out_features) or features.shape != (count, head.in_features):
        raise ValueError(
            f"logits {tuple(logits.shape)}, features {tuple(features.shape)} and {count} labels do not fit together "
            f"or to a last layer of {head.in_features} features and {head.out_features} classes"
        )
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < head.out_features:
        raise ValueError(f"labels lie in [{labels.min()}, {labels.max()}], not in [0, {head.out_features})")
    if not (torch.isfinite(logits).all() and torch.isfinite(features).all()):
        raise InputError(f"score {name}: logits or features of ID images are not finite; use another checkpoint")
    logits, features, labels = logits.detach().cpu().double(), features.detach().cpu().double(), labels.cpu()
    try:
        with torch.no_grad():
            score = POSTHOC[name].build(head, logits, features, labels)
    except (ValueError, InputError, torch.linalg.LinAlgError) as error:
        raise InputError(f"score {name}: cannot be fitted to these {count:,} ID images: {error}") from error

    def checked(logits: Tensor, features: Tensor) -> Tensor:
        with torch.no_grad():
            parts = zip(logits.cpu().double().split(CHUNK), features.cpu().double().split(CHUNK), strict=True)
            values = torch.cat([score(z, f) for z, f in parts])
        if not torch.isfinite(values).all():
            raise InputError(
                f"score {name}: is not finite for {int((~torch.isfinite(values)).sum()):,} of {len(values):,} images; "
                "leave it out for this classifier"
            )
        return values

    return checked
