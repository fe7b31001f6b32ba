"""Training steps beside the same model on PyTorch's attention: ``pytest benchmarks/test_training.py``.

The branches at RunConfig's sizes (CBP 512 wide over whole videos, wider than any recipe's), THUMOS14's real lengths,
forward, backward and optimiser: 64 videos on a GPU (bfloat16), 16 on the CPU (float32), where a step takes seconds.
With dropout off the sides' losses agree.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from memory import peak_extra_bytes
from training_step import LENGTHS, SIDES, Step

GPU = torch.cuda.is_available()
DEVICE, VIDEOS = ("cuda", LENGTHS) if GPU else ("cpu", LENGTHS[::4])
BRANCHES = {"B step": "vlp", "F step": "cbp"}


def first_loss(branch: str, side: str) -> float:
    step = Step(branch, side, VIDEOS[::4], DEVICE)
    step.model.eval()  # no dropout
    return step()


@pytest.mark.parametrize("side", [name for name in SIDES if name != "wtal"])
@pytest.mark.parametrize("name", BRANCHES)
def test_sides_train_alike(name: str, side: str) -> None:
    assert first_loss(BRANCHES[name], side) == pytest.approx(first_loss(BRANCHES[name], "wtal"), rel=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch.compile's own
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", BRANCHES)
def test_step(benchmark: Any, measure: Any, name: str, side: str, compiled: bool) -> None:
    if compiled and "sliced" in side:
        pytest.skip("a loop over lengths that change with every batch would be compiled again for each")
    step = Step(BRANCHES[name], side, VIDEOS, DEVICE, bf16=GPU, compiled=compiled)

    def run() -> None:
        step()
        if GPU:
            torch.cuda.synchronize()

    run()
    run()
    wanted = (1.5 if GPU else 1.3) if side == "SDPA, mask" and not compiled else None
    group = f"{name}, {len(VIDEOS)} videos, mean T {sum(VIDEOS) / len(VIDEOS):.0f}, {DEVICE}"
    benchmark.extra_info["videos"] = len(VIDEOS)
    measure(group + (", torch.compile" if compiled else ""), side, run, 2, wanted)


PROMISED = 24e9
"""Bytes: what a card of the RTX 3090's class has."""


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("name", BRANCHES)
def test_peak_memory(name: str, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A full batch, 64 x 1000 snippets and no padding: weights, optimiser, input and everything a step keeps.

    Without a GPU it is what the process takes on the CPU, where attention works in float32 under either precision.
    """

    def once() -> None:
        Step(BRANCHES[name], "wtal", [1000] * 64, DEVICE, bf16=precision == "bf16")()

    peak = peak_extra_bytes(once, DEVICE, warm=False)
    if peak is None:
        pytest.skip("the peak of memory is not known on this system")
    with capsys.disabled():
        print(f"\n{name}, 64 x 1000, {precision}, {DEVICE}: peak {peak / 1e9:.1f} GB of {PROMISED / 1e9:.0f}")
    assert peak < PROMISED
