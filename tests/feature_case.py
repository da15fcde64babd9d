"""Features of ID and OOD images that tests of post-hoc scores share."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from srood.posthoc import fit

C, D, N = 4, 16, 300


class Case:
    """ID images of four classes, each with four strong features, and OOD images with weak features anywhere."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        strong = 1.5 * np.kron(np.eye(C), np.ones(D // C))
        self.y = rng.integers(C, size=N)
        self.f = np.abs(rng.normal(0, 0.3, (N, D)) + strong[self.y])
        self.f[:12] = np.abs(rng.normal(0, 0.3, (12, D)) + strong[(self.y[:12] + 1) % C])  # of another class: mistakes
        self.test = np.abs(rng.normal(0, 0.3, (40, D)) + strong[np.arange(40) % C])
        self.ood = np.abs(rng.normal(0, 0.5, (40, D)))
        regression = LogisticRegression().fit(self.f, self.y)
        self.w, self.b = regression.coef_.astype(np.float32), regression.intercept_.astype(np.float32)
        self.head = nn.Linear(D, C)
        self.head.weight.data, self.head.bias.data = torch.from_numpy(self.w), torch.from_numpy(self.b)
        self.z = self.logits(self.f)
        self.some = np.concatenate([self.test, self.ood])

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features @ self.w.T.astype(float) + self.b

    def fit(self, name: str):
        return fit(name, self.head, torch.from_numpy(self.z), torch.from_numpy(self.f), torch.from_numpy(self.y))

    def score(self, name: str, features: np.ndarray) -> np.ndarray:
        return self.fit(name)(torch.from_numpy(self.logits(features)), torch.from_numpy(features)).numpy()
