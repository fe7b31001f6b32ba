"""Pseudo-labels and losses against their definitions as loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.models.cbp import FrameOutputs
from wtal.settings.config import LossConfig
from wtal.training.losses import distill_loss, step_loss
from wtal.training.rank_labels import PseudoLabelQuality, pseudo_label_quality, rank_labels
from wtal.training.video_losses import attention_loss, video_loss


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def bce(logit, target):
    return softplus(-logit) if target else softplus(logit)


@st.composite
def batches(draw, classes=3):
    """Logits with many ties, NaN beyond each length, and random labels."""
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any))
    levels = draw(st.sampled_from([1, 3, 1000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    size = (len(lengths), max(lengths) + draw(st.integers(0, 2)), classes)
    logits = torch.randint(levels, size, generator=generator) / levels * 4 - 2
    for video, length in zip(logits, lengths, strict=True):
        video[length:] = torch.nan
    labels = torch.randint(2, (len(lengths), classes), generator=generator).float()
    return logits, torch.tensor(lengths), labels


@settings(deadline=None, max_examples=100)
@given(batches(), st.floats(0, 1), st.floats(0, 1))
def test_pseudo_labels_are_ranks_within_video_and_class(batch, one, other):
    background, foreground = sorted((one, other))
    logits, lengths, labels = batch
    out = rank_labels(logits, lengths, labels, foreground, background)
    assert out.dtype == torch.int8
    for b, length in enumerate(lengths.tolist()):
        for c in range(3):
            values = logits[b, :length, c].tolist()
            for t in range(logits.shape[1]):
                if t >= length:
                    expected = -1
                elif not labels[b, c]:
                    expected = 0
                else:
                    below = sum((v, i) < (values[t], t) for i, v in enumerate(values))
                    quantile = (below + 0.5) / length
                    expected = 1 if quantile > foreground else 0 if quantile < background else -1
                assert out[b, t, c] == expected, (b, t, c)


def test_a_single_snippet_has_the_middle_rank():
    out = rank_labels(torch.zeros(1, 1, 2), torch.tensor([1]), torch.tensor([[1.0, 0.0]]), 0.85, 0.6)
    assert out.tolist() == [[[0, 0]]]
    out = rank_labels(torch.zeros(1, 1, 2), torch.tensor([1]), torch.tensor([[1.0, 0.0]]), 0.85, 0.5)
    assert out.tolist() == [[[-1, 0]]]


@pytest.mark.parametrize(("foreground", "background"), [(0.4, 0.6), (1.1, 0.5), (0.5, -0.1)])
def test_thresholds_out_of_order_are_named(foreground, background):
    with pytest.raises(ValueError, match="expected 0 <= background <= foreground <= 1"):
        rank_labels(torch.zeros(1, 4, 1), torch.tensor([4]), torch.ones(1, 1), foreground, background)


@settings(deadline=None, max_examples=50)
@given(batches(), st.integers(1, 9), st.booleans())
def test_video_loss_against_a_loop(batch, divisor, softmax):
    logits, lengths, labels = batch
    out = video_loss(logits, lengths, labels, divisor, softmax)
    for b, length in enumerate(lengths.tolist()):
        pooled = []
        for c in range(3):
            count = max(1, length // divisor)
            top = sorted(logits[b, :length, c].tolist(), reverse=True)[:count] or [0.0]
            pooled.append(sum(top) / len(top))
        assert out[b].item() == pytest.approx(class_loss(pooled, labels[b].tolist(), softmax), rel=1e-5)


def class_loss(pooled, labels, softmax):
    """Of one video, in plain Python."""
    if not softmax:
        return sum(bce(logit, label) for logit, label in zip(pooled, labels, strict=True)) / 2
    total = math.log(sum(math.exp(logit) for logit in pooled))
    having = [logit for logit, label in zip(pooled, labels, strict=True) if label] or pooled
    return sum(total - logit for logit in having) / len(having)


@settings(deadline=None, max_examples=50)
@given(batches(), st.integers(0, 10**6), st.booleans())
def test_attention_loss_against_a_loop(batch, seed, softmax):
    logits, lengths, labels = batch
    attention = 3 * torch.randn(logits.shape[:2], generator=torch.Generator().manual_seed(seed))
    attention.masked_fill_(logits[..., 0].isnan(), torch.nan)
    out = attention_loss(logits, attention, lengths, labels, softmax)
    for b, length in enumerate(lengths.tolist()):
        shares = [1 / (1 + math.exp(-x)) for x in attention[b, :length].tolist()]
        for term, weights, asked in (
            (out.attended, shares, labels[b].tolist()),
            (out.unattended, [1 - share for share in shares], [0.0] * 3),
        ):
            pooled = [
                sum(w * x for w, x in zip(weights, logits[b, :length, c].tolist(), strict=True))
                / max(sum(weights), 1e-6)
                for c in range(3)
            ]
            assert term[b].item() == pytest.approx(class_loss(pooled, asked, softmax), rel=1e-4, abs=1e-6)
        assert out.attention[b].item() == pytest.approx(sum(shares) / max(length, 1), rel=1e-5)


def test_attention_learns_with_the_classes_and_nothing_comes_from_padding():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    attention = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    lengths, labels = torch.tensor([9, 4]), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    config = LossConfig(attended=0.7, unattended=0.3, attention=0.2)
    terms = step_loss(FrameOutputs(logits, attention), lengths, labels, config, softmax=True)
    parts = 0.7 * terms["attended"] + 0.3 * terms["unattended"] + 0.2 * terms["attention"]
    torch.testing.assert_close(terms["total"], terms["video"] + parts)
    terms["total"].sum().backward()
    for grad in (logits.grad, attention.grad):
        assert (grad[1, 4:] == 0).all()
        assert (grad[0] != 0).all()
    with pytest.raises(ValueError, match="attention has shape"):
        step_loss(FrameOutputs(logits, attention[:, 1:]), lengths, labels, config)


@settings(deadline=None, max_examples=50)
@given(batches())
def test_distill_loss_against_loops(batch):
    logits, lengths, labels = batch
    target = rank_labels(logits, lengths, labels, 0.7, 0.4)
    out = distill_loss(logits, target, lengths, labels)
    for b, length in enumerate(lengths.tolist()):
        terms = {"foreground": [], "background": [], "absent": []}
        for c in range(3):
            for t in range(length):
                value = target[b, t, c].item()
                if value == -1:
                    continue
                kind = ("background", "foreground")[value] if labels[b, c] else "absent"
                terms[kind].append(bce(logits[b, t, c].item(), value))
        for kind, values in terms.items():
            expected = sum(values) / len(values) if values else 0.0
            assert getattr(out, kind)[b].item() == pytest.approx(expected, rel=1e-5), kind


@settings(deadline=None, max_examples=100)
@given(batches(), st.booleans(), st.integers(0, 10**6))
def test_distill_loss_under_a_softmax_against_loops(batch, weighted, seed):
    logits, lengths, labels = batch
    target = rank_labels(logits, lengths, labels, 0.7, 0.4)
    weights = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) if weighted else None
    out = distill_loss(logits, target, lengths, labels, weights, softmax=True)
    for b, length in enumerate(lengths.tolist()):
        labelled = [c for c in range(3) if labels[b, c]]
        terms = {"foreground": [], "background": []}
        for t in range(length):
            values = logits[b, t].tolist()
            total = math.log(sum(math.exp(value) for value in values))
            classes = [c for c in labelled if target[b, t, c] == 1]
            kind = "foreground"
            if not classes and labelled and all(target[b, t, c] == 0 for c in labelled):
                kind = "background"
            elif not classes:
                continue
            share = classes or range(3)  # background: every class alike, labelled or not
            loss = total - sum(values[c] for c in share) / len(share)
            counted = classes or labelled
            weight = 1.0 if weights is None else sum(weights[b, t, c].item() for c in counted) / len(counted)
            terms[kind].append((weight, loss))
        for kind, values in terms.items():
            total = sum(weight for weight, _ in values)
            expected = sum(weight * loss for weight, loss in values) / total if total else 0.0
            assert getattr(out, kind)[b].item() == pytest.approx(expected, rel=1e-4), kind
        assert out.absent is None  # not a term that is 0: foreground and background include it


def test_a_branch_under_a_softmax_learns_pseudo_labels_by_that_softmax():
    """A constant added to all logits of a snippet changes nothing."""
    torch.manual_seed(0)
    logits, lengths, labels = torch.randn(3, 9, 4), torch.tensor([9, 5, 1]), torch.eye(3, 4)
    target = rank_labels(logits, lengths, labels, 0.7, 0.4)
    config = LossConfig(topk_divisor=4, video=2.0, distill=3.0, absent=0.5)
    out = step_loss(FrameOutputs(logits), lengths, labels, config, target, softmax=True)
    parts = distill_loss(logits, target, lengths, labels, softmax=True)
    assert parts.foreground[:2].gt(0).all()
    assert parts.background[:2].gt(0).all()
    torch.testing.assert_close(out["total"], 2.0 * out["video"] + 3.0 * (parts.foreground + parts.background))
    moved = distill_loss(logits + torch.randn(3, 9, 1), target, lengths, labels, softmax=True)
    torch.testing.assert_close(moved.foreground, parts.foreground)
    torch.testing.assert_close(moved.background, parts.background)
    assert out.keys() == {"total", "video", "foreground", "background"}


def test_step_loss_weighs_the_terms():
    torch.manual_seed(0)
    logits, lengths, labels = torch.randn(3, 9, 4), torch.tensor([9, 5, 1]), torch.eye(3, 4)
    target = rank_labels(logits, lengths, labels, 0.7, 0.4)
    config = LossConfig(topk_divisor=4, video=2.0, distill=3.0, absent=0.5)
    out = step_loss(FrameOutputs(logits), lengths, labels, config, target)
    parts = 3.0 * (out["foreground"] + out["background"]) + 0.5 * out["absent"]
    torch.testing.assert_close(out["total"], 2.0 * out["video"] + parts)
    torch.testing.assert_close(out["video"], video_loss(logits, lengths, labels, 4))
    warm = step_loss(FrameOutputs(logits), lengths, labels, config)
    assert set(warm) == {"total", "video"}
    torch.testing.assert_close(warm["total"], 2.0 * out["video"])


def test_accumulation_over_parts_of_a_batch_is_the_whole():
    torch.manual_seed(0)
    logits, lengths = torch.randn(4, 30, 5, requires_grad=True), torch.tensor([30, 12, 7, 1])
    labels = torch.eye(4, 5)
    target = rank_labels(logits, lengths, labels, 0.7, 0.4)
    step_loss(FrameOutputs(logits), lengths, labels, LossConfig(), target)["total"].mean().backward()
    whole, logits.grad = logits.grad, None
    for part in (slice(0, 2), slice(2, 4)):
        terms = step_loss(FrameOutputs(logits[part]), lengths[part], labels[part], LossConfig(), target[part])
        (terms["total"].mean() / 2).backward()
    torch.testing.assert_close(logits.grad, whole)


def test_half_precision_logits_are_compared_in_float32():
    logits = torch.randn(2, 9, 3).bfloat16()
    labels, lengths = torch.tensor([[1.0, 0, 0], [0, 1, 1]]), torch.tensor([9, 4])
    target = rank_labels(logits, lengths, labels, 0.7, 0.4)
    for name, value in step_loss(FrameOutputs(logits), lengths, labels, LossConfig(), target).items():
        assert value.dtype == torch.float32, name
        exact = step_loss(FrameOutputs(logits.float()), lengths, labels, LossConfig(), target)[name]
        torch.testing.assert_close(value, exact)


@settings(deadline=None, max_examples=50)
@given(batches(), st.integers(0, 10**6))
def test_quality_against_counts(batch, seed):
    logits, lengths, labels = batch
    target = rank_labels(logits, lengths, labels, 0.6, 0.5)
    truth = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    counts = dict.fromkeys(vars(PseudoLabelQuality()), 0)
    for b, length in enumerate(lengths.tolist()):
        for t in range(length):
            for c in range(3):
                if labels[b, c]:
                    value, action = target[b, t, c].item(), bool(truth[b, t, c])
                    counts["action" if action else "rest"] += 1
                    if value == 1:
                        counts["foreground"] += 1
                        counts["foreground_right"] += action
                    if value == 0:
                        counts["background"] += 1
                        counts["background_right"] += not action
    assert vars(pseudo_label_quality(target, truth, lengths, labels)) == counts


def test_quality_ratios_and_sums():
    total = PseudoLabelQuality(4, 3, 10, 9, 6, 30) + PseudoLabelQuality(0, 0, 0, 0, 0, 0)
    assert total.foreground_precision == 0.75
    assert total.foreground_recall == 0.5
    assert total.background_precision == 0.9
    assert total.background_recall == 0.3
    assert PseudoLabelQuality().foreground_precision is None
    assert PseudoLabelQuality().background_recall is None


def test_shapes_that_do_not_fit_are_named():
    logits, lengths, labels = torch.zeros(2, 4, 3), torch.tensor([4, 2]), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"labels have shape \(2, 4\)"):
        video_loss(logits, lengths, torch.zeros(2, 4), 8)
    with pytest.raises(ValueError, match=r"target has shape \(2, 3, 3\)"):
        distill_loss(logits, torch.zeros(2, 3, 3, dtype=torch.int8), lengths, labels)
    with pytest.raises(ValueError, match=r"truth has shape \(2, 3, 3\)"):
        pseudo_label_quality(logits.to(torch.int8), torch.zeros(2, 3, 3), lengths, labels)
