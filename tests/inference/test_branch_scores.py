"""Frame scores and video-level probabilities against loops that follow their text."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.inference.branch_scores import branch_scores
from wtal.inference.branches import Branches
from wtal.models.cbp import CBP
from wtal.settings.config import CBPConfig, RunConfig

Activation = Literal["softmax", "sigmoid"]
CONFIG = dataclasses.replace(RunConfig(), cbp=CBPConfig(dim=8, heads=2, levels=1, activation="softmax"))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def unit(column: np.ndarray) -> np.ndarray:
    spread = column.max() - column.min()
    return (column - column.min()) / spread if spread > 0 else np.zeros_like(column)


def top(rows: np.ndarray, divisor: int) -> np.ndarray:
    return -np.sort(-rows, axis=0)[: max(1, len(rows) // divisor)].mean(0)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    classes=st.integers(1, 4),
    activation=st.sampled_from(["softmax", "sigmoid"]),
)
def test_scores_of_a_branch(
    seed: int, lengths: list[int], classes: int, activation: Literal["softmax", "sigmoid"]
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(lengths), max(lengths), classes, generator=random, dtype=torch.float64)
    config = dataclasses.replace(CONFIG, cbp=dataclasses.replace(CONFIG.cbp, activation=activation))
    branches = Branches({"cbp": CBP(3, classes, config.cbp)}, {})
    frames, levels = branch_scores(branches, "cbp", logits.clone(), torch.tensor(lengths), config)
    for row, length in enumerate(lengths):
        own = logits[row, :length].numpy()
        pooled = top(own, config.loss.topk_divisor)
        softmax = activation == "softmax"
        np.testing.assert_allclose(levels[row], np.exp(pooled) / np.exp(pooled).sum() if softmax else sigmoid(pooled))
        for c in range(classes):
            curve = np.maximum(own[:, c], 0) if softmax else sigmoid(own[:, c])
            np.testing.assert_allclose(frames[row, :length, c], unit(curve), atol=1e-9)
        assert not frames[row, length:].any()
