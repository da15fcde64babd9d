"""Post-hoc scores of where the features lie among those of ID images: Mahalanobis, KNN, ViM, SHE and kin.

Each function is a builder of `srood.posthoc`: from the last layer and ID images, logits (N, C), features (N, D) and
labels (N,), to a score of logits (B, C) and features (B, D), all float64 on the CPU. Larger = more OOD.

Formulas and constants are pytorch-ood's, which computes most of these in float32; here they are in float64, and written
so that memory stays small. The tests compare both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srood.errors import InputError
from srood.scores import Score, energy

RIDGE = 1e-6  # on the diagonal of scatter matrices, so that they can be inverted
KNN_K = 50  # the paper's value for CIFAR-10
NNGUIDE_K = 10
PROBABILITY_FLOOR = 1e-12  # of pNML
BLOCK = 2**22  # numbers held at once by GMM
SPARE = 8  # neighbours more than needed from a search in float32


def mahalanobis(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """min_k d_k(F) / 2, d_k(F) = (F - mu_k)' S^-1 (F - mu_k), mu_k the class means, S the scatter within classes."""
    distance = _class_distance(features, labels)
    return lambda z, f: distance(f) / 2


def rmd(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """min_k d_k(F) - d_0(F), the Mahalanobis distance relative to that to one Gaussian over all ID images."""
    distance = _class_distance(features, labels)
    background = _class_distance(features, torch.zeros_like(labels))
    return lambda z, f: distance(f) - background(f)


def gmm(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """-log sum_k pi_k N(F; mu_k, S_k), one Gaussian a class with a covariance of its own; by pytorch-ood."""
    from pytorch_ood.detector import GMM

    detector = GMM(None, reg=RIDGE).fit_features(features, labels)
    rows = max(1, BLOCK // (head.out_features * head.in_features))
    return lambda z, f: torch.cat([detector.predict_features(part) for part in f.split(rows)])


def knn(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """Distance from F / ||F|| to the 50th nearest of the ID images' F / ||F||."""
    largest = _largest_products(F.normalize(features, dim=1), KNN_K)
    # of unit vectors, ||a - b||^2 = 2 - 2 <a, b>
    return lambda z, f: (2 - 2 * largest(F.normalize(f, dim=1))[:, -1]).clamp(min=0).sqrt()


def nnguide(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """E(x) times the mean of the 10 largest <F / ||F||, -E(x') F' / ||F'||> over ID images x', E the energy."""
    largest = _largest_products(F.normalize(features, dim=1) * -energy(logits)[:, None], NNGUIDE_K)
    return lambda z, f: energy(z) * largest(F.normalize(f, dim=1)).mean(dim=1)


def she(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """-<F, S_c>, c the predicted class and S_c the mean feature of ID images rightly classified as c."""
    from pytorch_ood.detector import SHE

    right = labels[logits.argmax(dim=1) == labels]
    for label in range(head.out_features):
        if label not in right:
            raise InputError(f"it needs rightly classified images of every class, and has none of class {label}")
    detector = SHE(None, head).fit_features(features, labels)
    return lambda z, f: detector.predict_features(f)


def vim(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """a ||residual of F|| + E(x): the residual of F, centred at -W^+ b, outside the principal subspace of ID images.

    a makes the mean of its first term that of the largest logit. The subspace has the dimensions of the authors' code
    for wide networks, 1000 from D = 2048 on and 512 from D = 768 on, and D / 2 below.
    """
    width = features.shape[1]
    dimension = 1000 if width >= 2048 else 512 if width >= 768 else width // 2
    # singular values within the rounding of weights in float32 are none: weight decay makes one of them vanish
    rounding = torch.finfo(torch.float32).eps * max(head.weight.shape)
    origin = -(torch.linalg.pinv(head.weight, rtol=rounding) @ head.bias)
    centred = features - origin
    _, directions = torch.linalg.eigh(centred.T @ centred / len(centred))  # eigenvalues ascend
    residual = directions[:, : width - dimension]
    length = (centred @ residual).norm(dim=1).mean()
    if length <= 1e-12 * centred.norm(dim=1).mean():
        raise InputError(f"their features have no part outside their {dimension} principal dimensions")
    factor = logits.amax(dim=1).mean() / length
    return lambda z, f: factor * ((f - origin) @ residual).norm(dim=1) + energy(z)


def fdbd(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """-mean over classes c other than the predicted y of (z_y - z_c) / ||w_y - w_c||, over ||F - mean ID feature||."""
    centre = features.mean(dim=0)
    between = torch.cdist(head.weight, head.weight, compute_mode="donot_use_mm_for_euclid_dist")
    between.fill_diagonal_(1.0)  # z_y - z_y is 0 there

    def score(z: Tensor, f: Tensor) -> Tensor:
        largest, predicted = z.max(dim=1, keepdim=True)
        boundary = ((largest - z) / between[predicted[:, 0]]).sum(dim=1) / (z.shape[1] - 1)
        return -boundary / (f - centre).norm(dim=1).clamp(min=1e-8)

    return score


def nci(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """-<F - m, w_y> / ||F - m||, m the mean ID feature and w_y the weights of the predicted class; no norm penalty."""
    centre = features.mean(dim=0)

    def score(z: Tensor, f: Tensor) -> Tensor:
        centred = f - centre
        along = (centred * head.weight[z.argmax(dim=1)]).sum(dim=1)
        return -along / centred.norm(dim=1).clamp(min=1e-8)

    return score


def pnml(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """Regret of the single layer, log sum_c p_c / (p_c + (1 - p_c) p_c^g) / log C, on features of unit length.

    p is the softmax of the last layer on f = F / ||F||, and g = s / (1 + s) with s = f' (X' X)^+ f, where the rows of X
    are F / ||F|| of the ID images.
    """
    units = F.normalize(features, dim=1)
    projector = torch.linalg.pinv(units.T @ units, hermitian=True)

    def score(z: Tensor, f: Tensor) -> Tensor:
        f = F.normalize(f, dim=1)
        p = head(f).softmax(dim=1).clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
        projected = ((f @ projector) * f).sum(dim=1, keepdim=True)
        g = projected / (1 + projected)
        regret = (p / (p + (1 - p) * p**g)).sum(dim=1).log()
        return regret / torch.tensor(p.shape[1], dtype=torch.float64).log()

    return score


def _class_distance(features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """The squared Mahalanobis distance to the nearest class mean, (B, D) -> (B,), under the scatter within classes."""
    classes, index, sizes = labels.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(classes), features.shape[1], dtype=features.dtype).index_add_(0, index, features)
    means /= sizes[:, None]
    centred = features - means[index]
    scatter = centred.T @ centred
    scatter.diagonal().add_(RIDGE)
    factor = torch.linalg.cholesky(scatter)  # S = L L', so that d = ||L^-1 (F - mu)||^2

    def whiten(f: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor, f.T, upper=False).T.contiguous()

    centres = whiten(means)

    def distance(f: Tensor) -> Tensor:
        return torch.cdist(whiten(f), centres, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1).square()

    return distance


def _largest_products(bank: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """The k largest inner products with the rows of `bank`, (B, D) -> (B, k), descending.

    FAISS finds candidates in float32, in about half the time of pytorch-ood's searches; their products are computed in
    float64. A few more candidates than k make up for neighbours that change places in float32.
    """
    import faiss

    if len(bank) < k:
        raise InputError(f"it needs {k} or more")
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank.float().numpy())

    def largest(f: Tensor) -> Tensor:
        _, candidates = index.search(f.float().numpy(), min(k + SPARE, len(bank)))
        parts = zip(torch.from_numpy(candidates).split(256), f.split(256), strict=True)
        products = torch.cat([torch.einsum("bkd,bd->bk", bank[rows], part) for rows, part in parts])
        return products.topk(k, dim=1).values

    return largest
