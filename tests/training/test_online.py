"""Online training: both branches learn in every step, each from the other's moving average."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import wtal.training.trainer
from wtal.data.open import BENCHMARKS
from wtal.data.synthetic.parameters import SizeParameters
from wtal.inference.branches import Branches
from wtal.platform.device import Device
from wtal.platform.progress import Reporter
from wtal.runs.checkpoint import load_checkpoint
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig
from wtal.settings.recipe import from_table, load_recipe
from wtal.training.job import prepare
from wtal.training.pseudo_labels import PseudoLabels
from wtal.training.schedule import Stage, schedule
from wtal.training.student import Student
from wtal.training.trainer import Trainer

EPOCHS, STEPS, DECAY = 3, 3, 0.6  # of the online stage; steps an epoch


@pytest.fixture
def config(monkeypatch, tmp_path) -> RunConfig:
    """A short online schedule, and a tiny data set behind ``--dataset synthetic``."""
    size = SizeParameters(
        classes=3, training_videos=7, test_videos=4, min_snippets=60, max_snippets=90, i3d_dim=32, clip_dim=16
    )
    monkeypatch.setitem(BENCHMARKS, "small", dataclasses.replace(BENCHMARKS["small"], size=size))
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    epochs = {"warmup_epochs": 1, "b_epochs": EPOCHS, "f_epochs": EPOCHS}
    table = {
        "schedule": {"kind": "online", "online_ema": DECAY, "control": False, **epochs},
        "cbp": {"dim": 16, "heads": 2},
        "batch": {"size": 3, "snippets": 64},
    }
    return from_table(table, load_recipe("synthetic").config, "test")


def prepared(run: Run) -> Trainer:
    return prepare(run, Device(torch.device("cpu")), Reporter(Console(quiet=True), quiet=True, log=run.log))


def new_trainer(folder: Path, config: RunConfig) -> Trainer:
    return prepared(Run.create(folder, Setup(), config, {}, {"wtal": "test"}))


def weights(branches: Branches, name: str) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in branches[name].named_parameters()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[key], right[key]) for key in left)


def test_schedule() -> None:
    online = dataclasses.replace(RunConfig().schedule, kind="online", rounds=2, control=True, b_epochs=3, f_epochs=4)
    stages = schedule(online)
    assert [(stage.name, stage.student, stage.row) for stage in stages[3:]] == [
        ("online", "cbp", "CBP after online"),
        ("online vlp", "vlp", "VLP after online"),
        ("ensemble", "ensemble", "ensemble"),
    ]
    assert stages[:3] == schedule(dataclasses.replace(online, kind="alternating"))[:3]  # warm-up, zero-shot, control
    alternating = schedule(dataclasses.replace(online, kind="alternating"))
    for branch, epochs in (("cbp", stages[3].epochs), ("vlp", stages[3].second.epochs)):
        taught = [stage.epochs for stage in alternating if stage.student == branch and stage.teacher]
        assert epochs == sum(taught) > 0


def test_both_learn_in_every_step_each_from_the_moving_average_of_the_other(tmp_path, config, monkeypatch) -> None:
    """Against the definition, kept up step by step beside the trainer."""
    trainer = new_trainer(tmp_path / "run", config)
    steps: list[tuple[str, list[list[int]]]] = []
    means: dict[str, dict[str, Tensor]] = {}
    taught: list[tuple[str, int, PseudoLabels]] = []
    optimizers: dict[str, torch.optim.Optimizer] = {}
    real_update, real_teach = Trainer.update, wtal.training.trainer.make_pseudo_labels

    def make_pseudo_labels(stage: Stage, branches: Branches, *rest: object) -> PseudoLabels:
        if not means:  # the stage begins
            means.update({name: weights(branches, name) for name in ("cbp", "vlp")})
        other = {"cbp": "vlp", "vlp": "cbp"}[stage.student]
        torch.testing.assert_close(weights(branches, stage.teacher), means[other], rtol=1e-5, atol=1e-7)
        if steps:
            assert not same(weights(branches, stage.teacher), weights(branches, other))  # an average, not the student
        pseudo_labels = real_teach(stage, branches, *rest)
        taught.append((stage.student, len(steps), pseudo_labels))
        return pseudo_labels

    def update(self: Trainer, stage: Stage, student: Student, terms: Any, videos: Sequence[Tensor]) -> dict[str, float]:
        if stage.second is None:
            return real_update(self, stage, student, terms, videos)
        before = {name: weights(self.branches, name) for name in ("cbp", "vlp")}
        found = real_update(self, stage, student, terms, videos)
        for name, old in before.items():
            assert same(weights(self.branches, name), old) == (name != student.name)
        for key, value in weights(self.branches, student.name).items():
            means[student.name][key] = DECAY * means[student.name][key] + (1 - DECAY) * value
        own = [pseudo_labels for name, _, pseudo_labels in taught if name == student.name]
        assert student.pseudo_labels is own[-1]
        steps.append((student.name, [index.tolist() for index in videos]))
        optimizers.setdefault(student.name, student.optimizer)
        assert student.optimizer is optimizers[student.name]
        return found

    monkeypatch.setattr(wtal.training.trainer, "make_pseudo_labels", make_pseudo_labels)
    monkeypatch.setattr(Trainer, "update", update)
    rows = trainer.fit()

    assert [name for name, _ in steps] == ["cbp", "vlp"] * EPOCHS * STEPS
    assert all(first == second for (_, first), (_, second) in zip(steps[::2], steps[1::2], strict=True))
    for optimizer in optimizers.values():  # one for the whole stage
        assert {int(state["step"]) for state in optimizer.state.values()} == {EPOCHS * STEPS}
    # Pseudo-labels are made twice at the beginning of each epoch, and no two of a student alike.
    assert [(name, at) for name, at, _ in taught] == [
        (name, 2 * STEPS * epoch) for epoch in range(EPOCHS) for name in ("cbp", "vlp")
    ]
    for branch in ("cbp", "vlp"):
        targets = [torch.cat(pseudo_labels.targets) for name, _, pseudo_labels in taught if name == branch]
        assert all(not torch.equal(one, next_) for one, next_ in itertools.pairwise(targets))
    # What is measured and kept is the averages.
    assert [row["name"] for row in rows][2:] == ["CBP after online", "VLP after online", "ensemble"]
    assert set(trainer.branches) == {"cbp", "vlp"}
    for name, mean in means.items():
        torch.testing.assert_close(weights(trainer.branches, name), mean, rtol=1e-5, atol=1e-7)
    assert set(rows[2]["pseudo_labels"]) >= {"foreground precision"}


def test_the_one_with_fewer_epochs_stops_after_them_and_teaches_on(tmp_path, config, monkeypatch) -> None:
    config = from_table({"schedule": {"b_epochs": 1, "f_epochs": 2}}, config, "test")
    seen: list[tuple[str, int]] = []
    real = Trainer.update

    def update(self: Trainer, stage: Stage, student: Student, *rest: Any) -> dict[str, float]:
        if stage.second:
            seen.append((student.name, self.epoch))
        return real(self, stage, student, *rest)

    monkeypatch.setattr(Trainer, "update", update)
    trainer = new_trainer(tmp_path / "run", config)
    trainer.fit()
    assert [seen.count((name, epoch)) for name in ("cbp", "vlp") for epoch in (0, 1)] == [STEPS, STEPS, STEPS, 0]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("pseudo-labels of vlp's moving average") == 2
    assert log.count("pseudo-labels of cbp's moving average") == 1
    last = next(line for line in log.splitlines() if "online epoch 2/2" in line)
    assert "cbp/loss" in last
    assert "vlp" not in last


def test_several_networks_of_cbp_and_one_of_vlp(tmp_path, config, monkeypatch) -> None:
    """Each network of CBP has a batch of its own in a step; VLP learns from the first of them."""
    config = from_table({"cbp": {"networks": 3}}, config, "test")
    seen: list[tuple[str, int, list[list[int]]]] = []
    real = Trainer.update

    def update(self: Trainer, stage: Stage, student: Student, terms: Any, videos: Sequence[Tensor]) -> dict[str, float]:
        if stage.second:
            seen.append((student.name, len(terms), [index.tolist() for index in videos]))
        return real(self, stage, student, terms, videos)

    monkeypatch.setattr(Trainer, "update", update)
    trainer = new_trainer(tmp_path / "run", config)
    trainer.fit()
    assert [(name, terms) for name, terms, _ in seen] == [("cbp", 3), ("vlp", 1)] * EPOCHS * STEPS
    assert all(of_cbp == of_vlp for (*_, of_cbp), (*_, of_vlp) in zip(seen[::2], seen[1::2], strict=True))
    for order in range(3):
        epoch = [video for *_, videos in seen[: 2 * STEPS : 2] for video in videos[order]]
        assert sorted(epoch) == list(range(len(trainer.videos)))
    assert len({str(videos) for *_, videos in seen[:2]}) == 1
    assert len({str(videos) for videos in seen[0][2]}) == 3


class KilledError(Exception):
    pass


def test_cut_off_anywhere_in_the_online_stage_it_resumes_to_the_same_bits(tmp_path, config, monkeypatch) -> None:
    config = from_table({"distill": {"confidence": True}}, config, "test")
    new_trainer(tmp_path / "whole", config).fit()
    real_save, real_update = Trainer.save, Trainer.update
    whole = load_checkpoint(Run.open(tmp_path / "whole").checkpoints.newest()).tensors
    online: list[int] = []

    def resumes(folder: Path) -> None:
        prepared(Run.open(folder)).fit()
        cut = load_checkpoint(Run.open(folder).checkpoints.newest()).tensors
        assert whole.keys() == cut.keys()
        assert [key for key in whole if not torch.equal(whole[key], cut[key])] == []
        assert (folder / "metrics.json").read_text() == (tmp_path / "whole" / "metrics.json").read_text()

    # Killed after a checkpoint: of targets, of the first epoch, of the last, of the row after the stage.
    for saves in (4, 5, 9, 10):
        with monkeypatch.context() as patch:

            def save(self: Trainer, students: Sequence[Student], saves: int = saves) -> Path:
                path = real_save(self, students)
                if self.saved == saves:
                    online.append(len(students))
                    raise KilledError
                return path

            patch.setattr(Trainer, "save", save)
            trainer = new_trainer(tmp_path / f"killed{saves}", config)
            with pytest.raises(KilledError):
                trainer.fit()
        resumes(tmp_path / f"killed{saves}")
    assert online == [2, 2, 2, 0]

    # Interrupted between two steps of an epoch, whose targets no teacher could give again.
    with monkeypatch.context() as patch:

        def update(self: Trainer, stage: Stage, student: Student, *rest: Any) -> dict[str, float]:
            if (stage.name, self.epoch, self.batch_index, student.name) == ("online", 1, 1, "cbp"):
                os.kill(os.getpid(), signal.SIGINT)
            return real_update(self, stage, student, *rest)

        patch.setattr(Trainer, "update", update)
        with pytest.raises(KeyboardInterrupt, match="saved all"):
            new_trainer(tmp_path / "interrupted", config).fit()
    left = load_checkpoint(Run.open(tmp_path / "interrupted").checkpoints.newest())
    assert left.facts["batch"] == 2
    assert all(left.part(f"{name}'s {kind}") for name in ("cbp", "vlp") for kind in ("pseudo_labels", "optimizer"))
    resumes(tmp_path / "interrupted")
