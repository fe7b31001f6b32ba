"""The linear discriminant against its text, snippet by snippet, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.models.cbp import CBP
from wtal.models.discriminant import ABSENT, SHRINKAGE, LinearDiscriminant
from wtal.settings.config import CBPConfig

Videos = list[tuple[torch.Tensor, torch.Tensor]]


def definition(videos: Videos) -> tuple[np.ndarray, np.ndarray]:
    labelled = [(x.numpy().astype(np.float64), y.numpy()) for x, y in videos if y.any() and len(x)]
    classes, width = len(labelled[0][1]), labelled[0][0].shape[1]
    means = {c: np.mean([x.mean(0) for x, y in labelled if y[c]], axis=0) for c in range(classes) if has(labelled, c)}
    around = [row - np.mean([means[c] for c in range(classes) if y[c]], axis=0) for x, y in labelled for row in x]
    covariance = sum(np.outer(row, row) for row in around) / len(around)
    variance = np.trace(covariance) / width
    inverse = np.linalg.inv(covariance + (SHRINKAGE * variance if variance > 0 else 1) * np.eye(width))
    mean = np.mean([row for x, _ in labelled for row in x], axis=0)
    weight, bias = np.zeros((classes, width)), np.full(classes, ABSENT)
    for c, own in means.items():
        # The Gaussian's log-density at x, without what all classes share, is linear in x.
        weight[c] = inverse @ (own - mean)
        bias[c] = -(own - mean) @ inverse @ (own - mean) / 2 - weight[c] @ mean
    return weight, bias


def has(labelled: list[tuple[np.ndarray, np.ndarray]], c: int) -> bool:
    return any(y[c] for _, y in labelled)


@st.composite
def scenes(draw: st.DrawFn) -> Videos:
    width, classes = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    videos = []
    for _ in range(draw(st.integers(1, 8))):
        x = random.standard_normal((int(random.integers(0, 9)), width)) * random.uniform(0.5, 2) + random.normal()
        videos.append((torch.from_numpy(x), torch.from_numpy((random.random(classes) < 0.4).astype(np.float32))))
    return [*videos, (torch.from_numpy(random.standard_normal((3, width))), torch.ones(classes))]


@settings(max_examples=100)
@given(scenes())
def test_it_is_the_log_density_of_gaussians_that_share_a_covariance(videos: Videos) -> None:
    made = LinearDiscriminant(videos[0][0].shape[1], len(videos[0][1])).double()
    made.fit(iter(videos))
    weight, bias = definition(videos)
    np.testing.assert_allclose(made.weight, weight, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(made.bias, bias, rtol=1e-8, atol=1e-8)
    x = videos[-1][0]
    np.testing.assert_allclose(made(x), x.numpy() @ weight.T + bias, rtol=1e-8, atol=1e-8)


def test_a_class_without_a_training_video_and_videos_without_a_label() -> None:
    torch.manual_seed(0)
    videos = [(torch.randn(5, 4), torch.tensor([1.0, 0.0, 0.0])), (torch.randn(5, 4), torch.tensor([0.0, 1.0, 0.0]))]
    made, more = LinearDiscriminant(4, 3), LinearDiscriminant(4, 3)
    made.fit(videos)
    more.fit([*videos, (100 * torch.randn(9, 4), torch.zeros(3))])
    assert torch.equal(made.weight, more.weight)
    assert torch.equal(made.bias, more.bias)
    assert made(torch.randn(7, 4)).softmax(1)[:, 2].max() == 0
    with pytest.raises(ValueError, match="none with a label"):
        made.fit([(torch.randn(3, 4), torch.zeros(3))])


def test_snippets_that_are_all_alike_give_finite_scores() -> None:
    made = LinearDiscriminant(4, 2)
    made.fit([(torch.ones(3, 4), torch.tensor([1.0, 0.0])), (torch.ones(3, 4), torch.tensor([0.0, 1.0]))])
    assert made(torch.randn(5, 4)).isfinite().all()


def test_it_tells_classes_apart_by_what_varies_least() -> None:
    """One dimension is loud and common to all, a quiet one tells: means alone are lost in the loud one."""
    random = torch.Generator().manual_seed(0)

    def video(c: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(20, 2, generator=random) * torch.tensor([10.0, 0.1])
        x[:, 0] += 10 * torch.randn(1, generator=random)  # of this video alone
        x[:, 1] += 1.0 if c else -1.0
        return x, torch.eye(2)[c]

    cbp = CBP(2, 2, CBPConfig(dim=8, heads=2, levels=1, discriminant=True)).eval()
    train = [video(n % 2) for n in range(10)]
    every = torch.cat([x for x, _ in train])
    cbp.set_statistics(every.mean(0), every.std(0))
    kept = train[0][0].clone()
    cbp.fit_discriminant(train)
    assert torch.equal(train[0][0], kept)  # the caller's features stay as they are
    for n in range(20):
        x, y = video(n % 2)
        scores = cbp.outputs(x[None], torch.tensor([20])).discriminant
        assert scores is not None
        assert torch.equal(scores[0].mean(0).argmax(), y.argmax())


def test_training_and_a_branch_without_have_none() -> None:
    x, length = torch.randn(1, 5, 3), torch.tensor([5])
    cbp = CBP(3, 2, CBPConfig(dim=8, heads=2, levels=1, discriminant=True))
    assert cbp.train().outputs(x, length).discriminant is None
    assert cbp.eval().outputs(x, length).discriminant is not None
    plain = CBP(3, 2, CBPConfig(dim=8, heads=2, levels=1)).eval()
    assert plain.outputs(x, length).discriminant is None
    with pytest.raises(ValueError, match="no discriminant"):
        plain.fit_discriminant([])


def test_autocast_does_not_round_it() -> None:
    made = LinearDiscriminant(64, 3)
    made.weight.normal_()
    x = torch.randn(9, 64)
    expected = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(x), expected)
