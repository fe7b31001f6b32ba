"""Frame scores and video-level probabilities against loops that follow their text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.inference.branch_scores import DISCRIMINANT_DIVISOR, branch_scores
from wtal.inference.branches import Branches
from wtal.models.cbp import CBP, FrameOutputs
from wtal.settings.config import CBPConfig, RunConfig

CONFIG = dataclasses.replace(RunConfig(), cbp=CBPConfig(dim=8, heads=2, levels=1, activation="softmax"))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


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
    share=st.sampled_from([0.0, 0.3, 1.0]),
    second=st.booleans(),
)
def test_softmax_branch(seed: int, lengths: list[int], classes: int, share: float, second: bool) -> None:
    random = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths), classes)
    logits = torch.randn(shape, generator=random, dtype=torch.float64)
    discriminant = 5 * torch.randn(shape, generator=random, dtype=torch.float64) if second else None
    config = dataclasses.replace(CONFIG, localize=dataclasses.replace(CONFIG.localize, actionness=share))
    branches = Branches({"cbp": CBP(3, classes, config.cbp)}, {})
    outputs = FrameOutputs(logits.clone(), discriminant=discriminant)
    frames, levels = branch_scores(branches, "cbp", outputs, torch.tensor(lengths), config)
    for row, length in enumerate(lengths):
        own = logits[row, :length].numpy()
        expected = softmax(top(own, config.loss.topk_divisor))
        if discriminant is not None:
            expected = (expected + softmax(top(discriminant[row, :length].numpy(), DISCRIMINANT_DIVISOR))) / 2
        np.testing.assert_allclose(levels[row], expected, atol=1e-12)
        positive = np.maximum(own, 0)
        action = unit(positive.sum(1))
        for c in range(classes):
            mixed = unit((1 - share) * unit(positive[:, c]) + share * action)
            np.testing.assert_allclose(frames[row, :length, c], mixed, atol=1e-9)
        assert not frames[row, length:].any()


@pytest.mark.parametrize("discriminant", [None, torch.randn(1, 6, 2)])
def test_sigmoid_branch_reads_its_logits_alone(discriminant: torch.Tensor | None) -> None:
    config = dataclasses.replace(
        CONFIG,
        cbp=dataclasses.replace(CONFIG.cbp, activation="sigmoid"),
        localize=dataclasses.replace(CONFIG.localize, actionness=0.5),
    )
    branches = Branches({"cbp": CBP(3, 2, config.cbp)}, {})
    logits = torch.randn(1, 6, 2)
    outputs = FrameOutputs(logits.clone(), discriminant=discriminant)
    frames, levels = branch_scores(branches, "cbp", outputs, torch.tensor([6]), config)
    np.testing.assert_allclose(levels[0], torch.sigmoid(logits[0].max(0).values), atol=1e-6)
    for c in range(2):
        np.testing.assert_allclose(frames[0, :, c], unit(torch.sigmoid(logits[0, :, c]).numpy()), atol=1e-5)
