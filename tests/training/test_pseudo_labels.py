"""The pseudo-labels that a stage's teacher gives, in all variants."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import wtal.training.pseudo_labels
from wtal.ablation.variants import GROUPS, group_stages
from wtal.data.timebase import Timebase
from wtal.data.video import Instance, Video, VideoSet
from wtal.inference.branch_scores import mean_scores
from wtal.inference.localize import scale_scores
from wtal.platform.device import Device
from wtal.settings.config import DistillConfig, RunConfig, ScheduleConfig
from wtal.training.pseudo_labels import PseudoLabels, make_pseudo_labels, teacher_scores
from wtal.training.rank_labels import rank_labels
from wtal.training.schedule import Stage, schedule

CPU = Device(torch.device("cpu"))
GRID = Timebase(1.0, 1.0, 1.0)
BRANCHES = SimpleNamespace(reads_clip=lambda name: name.startswith("vlp"))
CLASSES = ("a", "b")


def videos(lengths: list[int]) -> tuple[VideoSet, tuple[Video, ...]]:
    made = tuple(
        Video(f"v{i}", "train", ("a",), GRID, (), instances=(Instance(0.0, max(1.0, n // 3), "a"),), snippets=n)
        for i, n in enumerate(lengths)
    )
    return VideoSet("x", "own", CLASSES, made), made


def labels_of(
    monkeypatch, logits: dict[str, list[Tensor]], stage: Stage, config: DistillConfig, seed: int = 0
) -> PseudoLabels:
    monkeypatch.setattr(wtal.training.pseudo_labels, "frame_logits", lambda branches, name, *rest: logits[name])
    data, made = videos([len(scores) for scores in next(iter(logits.values()))])
    return make_pseudo_labels(stage, BRANCHES, data, made, dataclasses.replace(RunConfig(), distill=config), CPU, seed)


def random_logits(seed: int, lengths: list[int]) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 2, generator=random) for n in lengths]


@pytest.mark.parametrize(("student", "quantiles"), [("vlp", (0.92, 0.60)), ("cbp", (0.85, 0.60))])
def test_the_step_goes_by_the_student(monkeypatch, student: str, quantiles: tuple[float, float]) -> None:
    logits = random_logits(0, [40, 17])
    found = labels_of(monkeypatch, {"t": logits}, Stage("x", student, "t", 1, "x"), DistillConfig())
    for target, scores in zip(found.targets, logits, strict=True):
        expected = rank_labels(scores[None], torch.tensor([len(scores)]), torch.tensor([[1.0, 0.0]]), *quantiles)
        assert torch.equal(target, expected[0])
    assert found.weights is None
    assert found.quality.action == 40 // 3 + 17 // 3


def test_shuffled_labels_are_as_many_at_other_times(monkeypatch) -> None:
    logits = {"t": random_logits(1, [200])}
    straight = labels_of(monkeypatch, logits, Stage("x", "cbp", "t", 1, "x"), DistillConfig()).targets[0]
    stage = Stage("x", "cbp", "t", 1, "x", labels="shuffled")
    first, again, other = (
        labels_of(monkeypatch, logits, stage, DistillConfig(), seed).targets[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.sort(0).values, straight.sort(0).values)
    agree = ((first == 1) & (straight == 1)).sum() / (straight == 1).sum()
    assert agree < 0.5  # 30 of 200 are foreground: by chance 0.15


def test_truth_is_the_annotation_without_any_scores(monkeypatch) -> None:
    monkeypatch.setattr(wtal.training.pseudo_labels, "frame_logits", None)
    stage = Stage("x", "cbp", None, 1, "x", labels="truth")
    data, made = videos([9])
    target = make_pseudo_labels(stage, BRANCHES, data, made, RunConfig(), CPU, 0).targets[0]
    assert target.tolist() == [[1, 0]] * 3 + [[0, 0]] * 6


@given(lengths=st.lists(st.integers(20, 60), min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_adaptive_shares_follow_how_much_the_teacher_fires(lengths: list[int], seed: int) -> None:
    logits = random_logits(seed, lengths)
    labels = [torch.tensor([[1.0, 0.0]]) for _ in lengths]
    shares = wtal.training.pseudo_labels.action_shares(logits, labels)
    fired = []
    for scores in logits:
        scaled = (scores[:, 0] - scores[:, 0].min()) / (scores[:, 0].max() - scores[:, 0].min())
        fired.append(float((scaled > 0.5).double().mean()))
    mean = sum(fired) / len(fired)
    for share, fraction in zip(shares, fired, strict=True):
        assert float(share[0, 0]) == pytest.approx(min(max(fraction / mean, 1 / 3), 3), rel=1e-6)
        assert float(share[0, 1]) == 1


def test_adaptive_labels_are_more_where_the_teacher_fires_more(monkeypatch) -> None:
    narrow, wide = torch.zeros(100, 2), torch.zeros(100, 2)
    narrow[:10], wide[:30] = 1, 1
    noise = 0.01 * torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    stage, config = Stage("x", "cbp", "t", 1, "x"), DistillConfig(adaptive=True)
    found = labels_of(monkeypatch, {"t": [narrow + noise, wide + noise]}, stage, config).targets
    assert [int((target[:, 0] == 1).sum()) for target in found] == [7, 22]  # .15 times 1/2 and 3/2
    assert [int((target[:, 0] == 0).sum()) for target in found] == [80, 40]  # 1 - .4 times 1/2 and 3/2


def test_without_confidence_no_weights_are_made(monkeypatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("wtal.training.pseudo_labels.scale_scores", lambda *of: made.append(of))
    scores = torch.rand(5, 2)
    assert labels_of(monkeypatch, {"t": [scores]}, Stage("x", "cbp", "t", 1, "x"), DistillConfig()).weights is None
    assert made == []


def test_confidence_is_the_distance_from_one_half(monkeypatch) -> None:
    scores = torch.tensor([[0.0, 0.0], [1.0, 1.0], [4.0, 2.0]])
    found = labels_of(monkeypatch, {"t": [scores]}, Stage("x", "cbp", "t", 1, "x"), DistillConfig(confidence=True))
    assert found.weights[0].tolist() == [[1.0, 0.0], [0.5, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("scale", ["probability", "logit", "rank"])
def test_an_ensemble_teaches_with_the_mean_on_a_common_scale(monkeypatch, scale: str, activation: str) -> None:
    logits = {"cbp": random_logits(2, [30]), "vlp": [100 * scores for scores in random_logits(3, [30])]}
    monkeypatch.setattr(wtal.training.pseudo_labels, "frame_logits", lambda branches, name, *rest: logits[name])
    data, made = videos([30])
    config = ensemble_config(scale, activation)
    [found] = teacher_scores(BRANCHES, "cbp+vlp", data, made, config, CPU)

    def common(scores: Tensor, softmax: bool) -> Tensor:
        if scale == "rank":
            return (scores.argsort(0).argsort(0) + 0.5) / len(scores)
        if scale == "probability":
            scores = scores.clamp(min=0) if softmax else scores.sigmoid()
        return (scores - scores.amin(0)) / (scores.amax(0) - scores.amin(0))

    cbp, vlp = common(logits["cbp"][0], activation == "softmax"), common(logits["vlp"][0], False)
    torch.testing.assert_close(found, (cbp + vlp) / 2)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_an_ensemble_teaches_with_the_bits_that_inference_averages(monkeypatch, activation: str) -> None:
    lengths = [1, 7, 30, 501]
    logits = {"cbp": random_logits(2, lengths), "vlp": random_logits(3, lengths)}
    before = {name: [scores.clone() for scores in of] for name, of in logits.items()}
    monkeypatch.setattr(wtal.training.pseudo_labels, "frame_logits", lambda branches, name, *rest: logits[name])
    data, made = videos(lengths)
    config = ensemble_config("probability", activation)
    for found, cbp, vlp in zip(
        teacher_scores(BRANCHES, "ensemble", data, made, config, CPU), *before.values(), strict=True
    ):
        length = torch.tensor([len(found)])
        inferred, _ = mean_scores(BRANCHES, {"cbp": cbp[None].clone(), "vlp": vlp[None].clone()}, length, config)
        assert torch.equal(found, inferred[0])
        if activation == "sigmoid":
            scaled = [scale_scores(torch.sigmoid(scores)[None], length)[0] for scores in (cbp, vlp)]
            assert torch.equal(found, torch.stack(scaled).mean(0))
    for name, of in logits.items():
        assert all(map(torch.equal, of, before[name]))


def ensemble_config(scale: str, activation: str) -> RunConfig:
    cbp = dataclasses.replace(RunConfig().cbp, activation=activation)
    return dataclasses.replace(RunConfig(), cbp=cbp, distill=DistillConfig(ensemble=scale))


def test_crops_carry_their_weights() -> None:
    found = PseudoLabels([torch.arange(10, dtype=torch.int8)[:, None]], [torch.arange(10.0)[:, None]], None)
    batch = SimpleNamespace(index=torch.tensor([0, 0]), start=torch.tensor([2, 7]), lengths=torch.tensor([4, 3]))
    target, weights = found.crops(batch, 4)
    assert target[..., 0].tolist() == [[2, 3, 4, 5], [7, 8, 9, -1]]
    assert weights[..., 0].tolist() == [[2.0, 3.0, 4.0, 5.0], [7.0, 8.0, 9.0, 0.0]]


def test_a_stage_tells_which_step_it_is() -> None:
    config = ScheduleConfig(kind="alternating", rounds=2, self_training=1, control=True)
    steps = {stage.name: stage.step for stage in schedule(config) if stage.epochs}
    assert steps == {"warmup": "F", "control": "F", "S1": "F", "B1": "B", "F1": "F", "B2": "B", "F2": "F"}
    # Of the ablation: a student is what it was copied from in the end.
    stages = [stage for group in GROUPS for stage in group_stages(group, config) if stage.epochs]
    starts = {stage.student: stage.start for stage in stages}
    for stage in stages:
        origin = stage.student
        while (start := starts.get(origin)) is not None:
            origin = start
        assert stage.step == {"vlp": "B", "cbp": "F"}[origin], stage
