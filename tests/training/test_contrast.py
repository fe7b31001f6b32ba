"""The contrast of hard and easy snippets against its definition as loops over one video."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.training.contrast import contrast_loss


def definition(embedding, logits, labels):
    """Of one video: embedding ``[n, D]``, logits ``[n, C]``, float64."""
    n = len(logits)
    own = [c for c, label in enumerate(labels.tolist()) if label]
    if n == 0 or not own:
        return torch.zeros((), dtype=torch.float64)
    score = [max(row[c] for c in own) for row in logits.tolist()]
    median = sorted(score)[(n - 1) // 2]
    above = [value > median for value in score]
    near = [{above[s] for s in range(max(0, t - 3), min(n, t + 4))} for t in range(n)]

    def highest(places, count, sign=1):
        return sorted(places, key=lambda t: -sign * score[t])[: max(1, count)]

    edge = [t for t in range(n) if len(near[t]) == 2]
    hard_action = highest([t for t in edge if above[t]], n // 20)
    hard_background = highest([t for t in edge if not above[t]], n // 20)
    easy_action, easy_background = highest(range(n), n // 5), highest(range(n), n // 5, -1)
    unit = [row / row.norm() for row in embedding]

    def mean(places):
        total = sum(unit[t] for t in places)
        return total / total.norm()

    total = torch.zeros((), dtype=torch.float64)
    for query, key, others in (
        (hard_action, easy_action, easy_background),
        (hard_background, easy_background, easy_action),
    ):
        if query:
            q = mean(query)
            same, other = (q @ mean(key)) / 0.07, [(q @ unit[t]) / 0.07 for t in others]
            total = total - torch.log(same.exp() / (same.exp() + sum(value.exp() for value in other)))
    return total


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=3).filter(any),
    st.sampled_from([1, 2, 1000]),
    st.integers(0, 10**6),
)
def test_it_and_its_gradient_are_those_of_the_definition(lengths, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    size = max(lengths) + 2
    logits = torch.randint(levels, (len(lengths), size, 3), generator=generator).double()  # few levels: many ties
    embedding = torch.randn(len(lengths), size, 4, generator=generator, dtype=torch.float64)
    for b, length in enumerate(lengths):
        logits[b, length:], embedding[b, length:] = torch.nan, torch.nan
    labels = torch.randint(2, (len(lengths), 3), generator=generator).float()
    embedding.requires_grad_()
    out = contrast_loss(embedding, logits, torch.tensor(lengths), labels)
    each = [definition(embedding[b, :n], logits[b, :n], labels[b]) for b, n in enumerate(lengths)]
    torch.testing.assert_close(out, torch.stack(each))
    if out.requires_grad and any(one.requires_grad for one in each):
        (found,) = torch.autograd.grad(out.sum(), embedding)
        (wanted,) = torch.autograd.grad(torch.stack(each).sum(), embedding)
        torch.testing.assert_close(found, wanted)


def test_it_pulls_hard_snippets_to_their_own_kind():
    torch.manual_seed(0)
    action, background = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    logits = torch.cat([torch.linspace(4, 5, 20), torch.linspace(0, -1, 20)])[:, None].repeat(1, 2)[None]
    right = torch.cat([action.expand(20, 2), background.expand(20, 2)])[None]
    mixed = right.clone()
    mixed[0, 17:20], mixed[0, 20:23] = background, action  # those at the edge look like the other kind
    lengths, labels = torch.tensor([40]), torch.tensor([[1.0, 0.0]])
    assert contrast_loss(right, logits, lengths, labels).item() < 0.01
    assert contrast_loss(mixed, logits, lengths, labels).item() > 10


def test_shapes_are_named():
    with pytest.raises(ValueError, match="embedding has shape"):
        contrast_loss(torch.zeros(1, 4, 2), torch.zeros(1, 5, 3), torch.tensor([4]), torch.zeros(1, 3))
    assert math.isfinite(
        contrast_loss(torch.zeros(1, 5, 2), torch.zeros(1, 5, 3), torch.tensor([5]), torch.ones(1, 3)).item()
    )
