"""Losses that are not finite: the run stops and says where, or leaves out as many batches as it may and counts them."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import wtal.training.gradients
from wtal.errors import WtalError
from wtal.platform.device import Device
from wtal.platform.progress import Reporter
from wtal.runs.checkpoint import load_checkpoint
from wtal.runs.run import Run, Setup
from wtal.settings.recipe import load_recipe
from wtal.training.job import prepare
from wtal.training.schedule import Stage
from wtal.training.student import Student
from wtal.training.trainer import Trainer


def trainer(
    folder: Path, toml: Path, skip: int, clip_norm: float = 0.0, kind: str = "alternating", networks: int = 1
) -> Trainer:
    own = load_recipe("own").config
    config = dataclasses.replace(
        own,
        schedule=dataclasses.replace(own.schedule, kind=kind, warmup_epochs=2, b_epochs=1, f_epochs=1, control=False),
        optimizer=dataclasses.replace(own.optimizer, clip_norm=clip_norm),
        cbp=dataclasses.replace(own.cbp, networks=networks, dim=8, heads=1, levels=1),
        vlp=dataclasses.replace(own.vlp, heads=1, blocks=1),
        batch=dataclasses.replace(own.batch, size=3, snippets=32),
    )
    setup = Setup(dataset=str(toml), skip_bad_batches=skip)
    run = Run.open(folder) if folder.exists() else Run.create(folder, setup, config, {}, {})
    return prepare(run, Device(torch.device("cpu")), Reporter(Console(quiet=True), quiet=True, log=run.log))


@pytest.fixture
def poisoned(monkeypatch) -> list[int]:
    """Numbers of training steps (from 1) whose loss is made NaN; fill it."""
    steps: list[int] = []
    real, count = wtal.training.gradients.step_loss, 0

    def loss(*arguments: object, **named: object) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        terms = real(*arguments, **named)
        return {**terms, "total": terms["total"] * torch.nan} if count in steps else terms

    monkeypatch.setattr(wtal.training.gradients, "step_loss", loss)
    return steps


def test_skipped_batches_change_nothing_and_are_counted(tiny, poisoned, record, monkeypatch, tmp_path) -> None:
    poisoned += [2, 5]
    here = trainer(tmp_path / "run", tiny.toml, skip=2)
    real = Trainer.update
    checked = 0

    def update(self: Trainer, *arguments: Any) -> dict[str, float]:
        nonlocal checked
        before = {name: value.clone() for name, value in self.branches.state_dict().items()}
        terms = real(self, *arguments)
        if not terms:
            checked += 1
            assert all(torch.equal(before[name], value) for name, value in self.branches.state_dict().items())
        return terms

    monkeypatch.setattr(Trainer, "update", update)
    here.fit()
    assert checked == here.skipped == 2
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "skipped batch 1 of at most 2: the loss became nan in warmup, epoch 1, step 2 (videos v" in log
    assert "skipped batch 2 of at most 2: the loss became nan in warmup, epoch 2, step 2 (videos v" in log
    saved, _ = here.run.checkpoints.load(pytest.fail)
    assert saved.facts["skipped"] == 2
    assert all(torch.isfinite(value).all() for value in saved.tensors.values())
    assert trainer(tmp_path / "run", tiny.toml, skip=2).skipped == 2  # a resumed run goes on counting
    record("loss not finite", "2 batches, --skip-bad-batches 2", "left out, weights untouched, counted")


@pytest.mark.parametrize("network", [0, 1, 2])
def test_one_network_of_three_makes_a_step_bad(network: int, tiny, poisoned, monkeypatch, tmp_path) -> None:
    """The message names the batch of that network, and the step changes no other network either."""
    poisoned += [3 + network + 1]  # in the second step
    here = trainer(tmp_path / "run", tiny.toml, skip=1, networks=3)
    asked: list[list[str]] = []
    real, updated = Trainer.update, []

    def update(self: Trainer, stage: Stage, student: Student, terms: Any, videos: Any) -> dict[str, float]:
        before = copy.deepcopy(self.branches.state_dict())
        found = real(self, stage, student, terms, videos)
        if not found:
            asked.append([self.videos[index].id for index in videos[network].tolist()])
            assert all(torch.equal(before[name], value) for name, value in self.branches.state_dict().items())
        updated.append(bool(found))
        return found

    monkeypatch.setattr(Trainer, "update", update)
    here.fit()
    assert updated[:3] == [True, False, True]
    assert len(asked) == here.skipped == 1
    log = (tmp_path / "run" / "log.txt").read_text()
    where = "warmup, epoch 1, step 2"
    assert f"the loss of network {network + 1} of 3 became nan in {where} (videos {', '.join(asked[0])})" in log


def losses(folder: Path) -> list[list[float]]:
    """Each epoch's losses, as the log has them."""
    lines = [line for line in (folder / "log.txt").read_text().splitlines() if re.search(r" epoch \d+/", line)]
    return [[float(value) for value in re.findall(r" (\d+\.\d+)", line.split(": ", 1)[1])] for line in lines]


def test_losses_in_the_log_are_averages_over_what_counted(tiny, poisoned, monkeypatch, tmp_path) -> None:
    """Of a loss that is the same for every video: it does not depend on how many batches were left out."""
    import wtal.training.gradients as module

    poisoning = module.step_loss

    def constant(*arguments: object, **named: object) -> dict[str, torch.Tensor]:
        return {name: value * 0 + 2.5 for name, value in poisoning(*arguments, **named).items()}

    monkeypatch.setattr(module, "step_loss", constant)
    poisoned += [2, 9]
    trainer(tmp_path / "run", tiny.toml, skip=2).fit()
    found = losses(tmp_path / "run")
    assert len(found) == 4
    assert all(value == 2.5 for epoch in found for value in epoch)


class GradientFault(torch.autograd.Function):
    """The value itself; its gradient has one element that is not finite."""

    @staticmethod
    def forward(ctx: object, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[0] = torch.nan
        return gradient


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("skip", [0, 1])
def test_a_gradient_that_is_not_finite_under_a_finite_loss(
    skip: int, clip_norm: float, tiny, record, monkeypatch, tmp_path
) -> None:
    here = trainer(tmp_path / "run", tiny.toml, skip, clip_norm)
    real, count = wtal.training.gradients.step_loss, 0

    def loss(*arguments: object, **named: object) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        terms = real(*arguments, **named)
        return {**terms, "total": GradientFault.apply(terms["total"])} if count == 5 else terms

    monkeypatch.setattr(wtal.training.gradients, "step_loss", loss)
    told = "the gradient's norm became nan in warmup, epoch 2, step 2 (videos v"
    if skip:
        here.fit()
        assert told in (tmp_path / "run" / "log.txt").read_text()
        assert here.skipped == 1
    else:
        with pytest.raises(WtalError) as raised:
            here.fit()
        assert told in str(raised.value)
        assert str(raised.value).endswith(f"the last good checkpoint is {here.run.checkpoints.newest()}")
    for path in here.run.checkpoints.paths():
        assert all(torch.isfinite(value).all() for value in load_checkpoint(path).tensors.values())
    record(
        "gradient not finite", f"--optimizer.clip-norm {clip_norm}, --skip-bad-batches {skip}", "as a loss that is not"
    )


def test_weights_that_are_not_finite_are_never_saved(tiny, record, monkeypatch, tmp_path) -> None:
    """Whatever made them so."""
    here = trainer(tmp_path / "run", tiny.toml, skip=9)
    real, count = Trainer.step, 0

    def step(self: Trainer, *arguments: object) -> dict[str, float]:
        nonlocal count
        count += 1
        terms = real(self, *arguments)
        if count == 6:  # the last of the second epoch
            with torch.no_grad():
                next(self.branches["cbp"].parameters()).view(-1)[0] = torch.inf
        return terms

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(WtalError, match=r"the weights of cbp are no longer finite .* last good checkpoint is .*000001"):
        here.fit()
    found, number = here.run.checkpoints.load(pytest.fail)
    assert number == 1
    assert all(torch.isfinite(value).all() for value in found.tensors.values())
    record("weights not finite", "after the last step of an epoch", "not saved; the checkpoint before it named")


def test_a_batch_that_both_students_leave_out_counts_once(tiny, poisoned, tmp_path) -> None:
    poisoned += [7, 8]  # six steps of warm-up, then two each batch
    here = trainer(tmp_path / "run", tiny.toml, skip=1, kind="online")
    here.fit()
    assert here.skipped == 1
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("skipped batch 1 of at most 1: the loss became nan in online, epoch 1, step 1 (") == 2


@pytest.mark.parametrize(("skip", "steps", "told"), [(0, [5], "epoch 2, step 2"), (1, [1, 8], "B1, epoch 1, step 2")])
def test_one_too_many_stops_the_run(skip: int, steps: list[int], told: str, tiny, poisoned, record, tmp_path) -> None:
    poisoned += steps
    here = trainer(tmp_path / "run", tiny.toml, skip)
    with pytest.raises(WtalError) as raised:
        here.fit()
    assert f"the loss became nan in {'warmup, ' if skip == 0 else ''}{told} (videos v" in str(raised.value)
    good = here.run.checkpoints.newest()
    assert str(raised.value).endswith(f"the last good checkpoint is {good}")
    assert here.run.checkpoints.load(pytest.fail) is not None
    record(
        "loss not finite", f"{len(steps)} batches, --skip-bad-batches {skip}", "stopped: step, videos, checkpoint named"
    )


def test_the_log_of_students_that_left_out_different_batches() -> None:
    from wtal.training.loss_average import LossAverage, together

    tally = LossAverage()
    tally.add(together({"cbp": {"loss": 1.0}, "vlp": {"loss": 3.0}}), 3, 5)
    tally.add(together({"cbp": {"loss": 1.0}, "vlp": {}}), 2, 5)
    assert tally.means(5) == pytest.approx({"loss": 4.0, "cbp/loss": 1.0, "vlp/loss": 3.0})
    assert LossAverage(tally.sums, None).means(5) == tally.sums  # of a checkpoint that did not count


def test_the_log_of_an_epoch_whose_first_batches_had_one_more_term() -> None:
    """Older versions stored ``absent``, 0 under a softmax; now that term is left out there."""
    from wtal.training.loss_average import LossAverage

    tally = LossAverage({"loss": 0.4, "absent": 0.0}, {"loss": 2, "absent": 2})
    tally.add({"loss": 2.0}, 3, 5)
    assert tally.means(5) == pytest.approx({"loss": 1.6, "absent": 0.0})


def test_a_negative_number_is_refused(tiny, wtal, tmp_path) -> None:
    done = wtal("train", *tiny.arguments(tmp_path / "run", skip_bad_batches=-1))
    assert done.code == 2
    assert "--skip-bad-batches -1: expected a whole number from 0 on" in done.text
