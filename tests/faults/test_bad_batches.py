"""Losses that are not finite: the run stops and says where, or leaves out as many batches as it may and counts them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from rich.console import Console

import wtal.step
from wtal.device import Device
from wtal.errors import WtalError
from wtal.job import prepare
from wtal.progress import Reporter
from wtal.recipe import load_recipe
from wtal.run import Run, Setup
from wtal.train import Trainer


def trainer(folder: Path, toml: Path, skip: int) -> Trainer:
    own = load_recipe("own").config
    config = dataclasses.replace(
        own,
        schedule=dataclasses.replace(own.schedule, warmup_epochs=2, b_epochs=1, f_epochs=1, control=False),
        cbp=dataclasses.replace(own.cbp, dim=8, heads=1, levels=1),
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
    real, count = wtal.step.step_loss, 0

    def loss(*arguments: object, **named: object) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        terms = real(*arguments, **named)
        return {**terms, "total": terms["total"] * torch.nan} if count in steps else terms

    monkeypatch.setattr(wtal.step, "step_loss", loss)
    return steps


def test_skipped_batches_change_nothing_and_are_counted(tiny, poisoned, record, monkeypatch, tmp_path) -> None:
    poisoned += [2, 5]
    here = trainer(tmp_path / "run", tiny.toml, skip=2)
    real = Trainer.step
    checked = 0

    def step(self: Trainer, stage, optimizer, batch) -> dict[str, float]:
        nonlocal checked
        before = {name: value.clone() for name, value in self.branches.state_dict().items()}
        terms = real(self, stage, optimizer, batch)
        if not terms:
            checked += 1
            assert all(torch.equal(before[name], value) for name, value in self.branches.state_dict().items())
        return terms

    monkeypatch.setattr(Trainer, "step", step)
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


def test_a_negative_number_is_refused(tiny, wtal, tmp_path) -> None:
    done = wtal("train", *tiny.arguments(tmp_path / "run", skip_bad_batches=-1))
    assert done.code == 2
    assert "--skip-bad-batches -1: expected a whole number from 0 on" in done.text
