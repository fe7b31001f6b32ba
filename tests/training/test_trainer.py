from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import wtal
from wtal.data.batches import TrainingBatches
from wtal.data.features import read_features
from wtal.data.open import BENCHMARKS, open_data
from wtal.data.synthetic.parameters import SizeParameters
from wtal.errors import WtalError
from wtal.evaluation.table import table, video_level_map
from wtal.platform.device import Device
from wtal.platform.distributed import SINGLE_PROCESS
from wtal.platform.progress import Reporter
from wtal.report.curves import read_curves
from wtal.runs.checkpoint import load_checkpoint
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig
from wtal.settings.recipe import load_recipe
from wtal.training.gradients import add_gradients
from wtal.training.job import prepare
from wtal.training.schedule import schedule
from wtal.training.trainer import Trainer

CPU = Device(torch.device("cpu"))


@pytest.fixture
def config() -> RunConfig:
    """The synthetic recipe, as short as it can be with every stage in it."""
    config = load_recipe("synthetic").config
    return dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, warmup_epochs=2, b_epochs=2, f_epochs=1, rounds=2),
        cbp=dataclasses.replace(config.cbp, dim=16, heads=2),
        batch=dataclasses.replace(config.batch, size=3, snippets=64),
    )


@pytest.fixture
def small_world(monkeypatch, tmp_path) -> None:
    """A synthetic data set of a few short videos behind ``--dataset synthetic``."""
    size = SizeParameters(
        classes=3, training_videos=7, test_videos=4, min_snippets=60, max_snippets=90, i3d_dim=32, clip_dim=16
    )
    monkeypatch.setitem(BENCHMARKS, "small", dataclasses.replace(BENCHMARKS["small"], size=size))
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))


def new_trainer(folder: Path, config: RunConfig, seed: int = 0) -> Trainer:
    run = Run.create(folder, Setup(seed=seed), config, {}, {"wtal": "test"})
    return prepared(run)


def prepared(run: Run) -> Trainer:
    return prepare(run, CPU, Reporter(Console(quiet=True), quiet=True, log=run.log))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(Run.open(folder).checkpoints.newest()).tensors


def test_schedule() -> None:
    config = dataclasses.replace(RunConfig().schedule, rounds=2, control=True, f_epochs=3)
    stages = schedule(config)
    assert [(s.name, s.student, s.teacher) for s in stages] == [
        ("warmup", "cbp", None),
        ("zero-shot", "vlp", None),
        ("control", "control", None),
        ("B1", "vlp", "cbp"),
        ("F1", "cbp", "vlp"),
        ("B2", "vlp", "cbp"),
        ("F2", "cbp", "vlp"),
        ("ensemble", "ensemble", None),
    ]
    assert stages[2].epochs == 6


@pytest.mark.usefixtures("small_world")
def test_a_run_leaves_everything_behind(tmp_path, config) -> None:
    folder = tmp_path / "run"
    rows = new_trainer(folder, config).fit()
    names = [row["name"] for row in rows]
    assert names == [
        "CBP after warm-up",
        "VLP zero-shot",
        "CBP as long, no teacher",
        "VLP after B 1",
        "CBP after F 1",
        "VLP after B 2",
        "CBP after F 2",
        "ensemble",
    ]
    assert json.loads((folder / "metrics.json").read_text())["rows"] == rows
    assert all(row["kind"] == "localization" and row["videos"] == 4 for row in rows)
    assert {path.stem for path in (folder / "predictions").iterdir()} >= {"ensemble", "vlp-zero-shot"}
    assert (folder / "config.toml").is_file()
    assert (folder / "versions.json").is_file()
    assert "F2 epoch 1/1" in (folder / "log.txt").read_text()
    assert any((folder / "tensorboard").iterdir())


@pytest.mark.usefixtures("small_world")
def test_same_seed_same_bits_and_another_seed_others(tmp_path, config) -> None:
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        new_trainer(tmp_path / name, config, seed).fit()
        runs[name] = weights(tmp_path / name)
    assert all(torch.equal(runs["a"][key], runs["b"][key]) for key in runs["a"])
    assert any(not torch.equal(runs["a"][key], runs["c"][key]) for key in runs["a"])


@pytest.fixture
def additive(config) -> RunConfig:
    """Everything that CBP has on real features switched on."""
    return dataclasses.replace(
        config,
        cbp=dataclasses.replace(
            config.cbp, activation="softmax", residual_init=0.1, output_dropout=0.5, attention=True, levels=2, window=2
        ),
        loss=dataclasses.replace(config.loss, contrast=0.3),
        localize=dataclasses.replace(config.localize, upsample=4),
    )


@pytest.mark.usefixtures("small_world")
def test_every_term_is_logged_and_what_was_trained_predicts(tmp_path, additive) -> None:
    folder = tmp_path / "run"
    trainer = new_trainer(folder, additive)
    trainer.fit()
    log = (folder / "log.txt").read_text()
    (warmup,) = [line for line in log.splitlines() if "warmup epoch 2/2" in line]
    for term in ("video", "attended", "unattended", "attention", "contrast"):
        assert math.isfinite(float(re.search(rf" {term} (-?[\d.]+)", warmup)[1]))
    (b,) = [line for line in log.splitlines() if "B1 epoch 2/2" in line]
    assert "attended" not in b  # VLP has neither
    assert "contrast" not in b
    assert math.isfinite(float(re.search(r" foreground (-?[\d.]+)", log[log.index("F2 epoch") :])[1]))
    assert " absent " in b
    assert " absent " not in log[log.index("F2 epoch") :]  # CBP's softmax has no such term
    terms = read_curves(folder / "tensorboard")
    assert ("absent" in terms["B1"], "absent" in terms["F2"]) == (True, False)
    model = wtal.load(folder, device="cpu")
    told = json.loads((folder / "predictions" / "cbp-after-f-2.json").read_text())
    best = trainer.data.subset("test")[0]
    found = model.detect(read_features(best), fps=25, stride=16, window=16)
    listed = sorted(told["results"][best.id], key=lambda one: -one["score"])
    assert [round(one.start, 4) for one in found[:5]] == [round(one["segment"][0], 4) for one in listed[:5]]


@pytest.mark.usefixtures("small_world")
def test_parts_of_a_batch_give_the_gradients_of_the_whole(tmp_path, additive) -> None:
    still = dataclasses.replace(
        additive, cbp=dataclasses.replace(additive.cbp, dropout=0.0, input_dropout=0.0, output_dropout=0.0)
    )
    found = []
    for micro in (0, 1):
        config = dataclasses.replace(still, batch=dataclasses.replace(still.batch, micro=micro))
        trainer = new_trainer(tmp_path / f"run{micro}", config)
        branches, stage = trainer.branches, trainer.stages[0]
        batch = next(iter(TrainingBatches(trainer.data, trainer.videos, config.batch, 0, with_clip=False).epoch(0, 0)))
        terms = add_gradients(branches, stage.student, batch, None, config, CPU, SINGLE_PROCESS)
        found.append((terms, [parameter.grad for parameter in branches["cbp"].parameters()]))
    (one, whole), (other, parts) = found
    assert set(one) == {"loss", "video", "attended", "unattended", "attention", "contrast"}
    assert one == pytest.approx(other, rel=1e-5)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


class KilledError(Exception):
    pass


@pytest.mark.usefixtures("small_world")
@pytest.mark.parametrize("saves", [1, 2, 3, 5, 7, 9, 11])
def test_a_run_cut_off_anywhere_resumes_to_the_same_bits(tmp_path, config, monkeypatch, saves: int) -> None:
    new_trainer(tmp_path / "whole", config).fit()
    trainer = new_trainer(tmp_path / "cut", config)
    real, count = Trainer.save, 0

    def save(self: Trainer, optimizer: torch.optim.Optimizer | None) -> Path:
        nonlocal count
        path = real(self, optimizer)
        count += 1
        if count == saves:
            raise KilledError
        return path

    monkeypatch.setattr(Trainer, "save", save)
    with pytest.raises(KilledError):
        trainer.fit()
    monkeypatch.setattr(Trainer, "save", real)
    resumed = prepared(Run.open(tmp_path / "cut"))
    resumed.fit()
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert [key for key in whole if not torch.equal(whole[key], cut[key])] == []
    assert (tmp_path / "whole" / "metrics.json").read_text() == (tmp_path / "cut" / "metrics.json").read_text()


def with_settings(config: RunConfig, **sections: dict[str, object]) -> RunConfig:
    changed = {name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()}
    return dataclasses.replace(config, **changed)


@pytest.mark.usefixtures("small_world")
def test_a_moving_average_is_its_definition_and_resumes(tmp_path, config, monkeypatch) -> None:
    config = with_settings(
        config, optimizer={"ema": 0.7}, schedule={"rounds": 1, "control": False}, distill={"confidence": True}
    )
    trainer = new_trainer(tmp_path / "whole", config)
    mean = {name: value.detach().clone() for name, value in trainer.branches["cbp"].named_parameters()}
    real, steps = Trainer.step, 0

    def step(self: Trainer, *arguments: object) -> dict[str, float]:
        nonlocal steps
        terms = real(self, *arguments)
        if self.stages[self.stage_index].name == "warmup":
            steps += 1
            for name, value in self.branches["cbp"].named_parameters():
                mean[name] = 0.7 * mean[name] + 0.3 * value.detach()
        return terms

    class WarmedUpError(Exception):
        pass

    measured = Trainer.measure

    def warmed_up(self: Trainer, stage: object, pseudo_labels: object) -> None:
        if stage.name == "warmup":
            raise WarmedUpError
        measured(self, stage, pseudo_labels)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        patch.setattr(Trainer, "measure", warmed_up)
        with pytest.raises(WarmedUpError):
            trainer.fit()
    assert steps == 6
    for name, value in trainer.branches["cbp"].named_parameters():
        torch.testing.assert_close(value, mean[name])
    # cut off after the last epoch and before the row, it goes on to the same bits
    resumed = prepared(Run.open(tmp_path / "whole"))
    rows = resumed.fit()
    assert rows == new_trainer(tmp_path / "other", config).fit()


@pytest.mark.usefixtures("small_world")
def test_a_checkpoint_of_another_schedule_is_refused(tmp_path, config) -> None:
    trainer = new_trainer(tmp_path / "run", config)
    trainer.stages = trainer.stages[:2]
    trainer.fit()
    again = new_trainer(tmp_path / "again", config)
    checkpoint, number = trainer.run.checkpoints.load(pytest.fail)
    again.resume(checkpoint, number)
    checkpoint.facts["rows"][1]["name"] = "something else"
    with pytest.raises(WtalError, match="another schedule"):
        again.resume(checkpoint, number)


@pytest.mark.usefixtures("small_world")
def test_a_last_step_taught_by_the_ensemble(tmp_path, config) -> None:
    config = with_settings(config, schedule={"rounds": 1, "control": False, "ensemble_epochs": 1})
    rows = new_trainer(tmp_path / "run", config).fit()
    assert [row["name"] for row in rows][-2:] == ["CBP taught by the ensemble", "ensemble"]
    assert set(rows[-2]["pseudo_labels"]) >= {"foreground precision", "background recall"}


@pytest.mark.usefixtures("small_world")
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, config) -> None:
    trainer = new_trainer(tmp_path / "run", config)
    with torch.no_grad():
        next(trainer.branches["cbp"].parameters()).fill_(torch.inf)
    told = r"the loss became (nan|inf) in warmup, epoch 1, step 1 \(videos s.*; no checkpoint yet$"
    with pytest.raises(WtalError, match=told):
        trainer.fit()


@pytest.mark.usefixtures("small_world")
def test_a_run_folder_is_never_overwritten(tmp_path, config) -> None:
    new_trainer(tmp_path / "run", config)
    with pytest.raises(WtalError, match="already exists"):
        new_trainer(tmp_path / "run", config)


@pytest.mark.usefixtures("small_world")
def test_a_control_of_no_epochs_is_what_it_would_begin_as(tmp_path, config) -> None:
    config = with_settings(config, schedule={"f_epochs": 0, "rounds": 1, "control": True})
    rows = {row["name"]: row for row in new_trainer(tmp_path / "run", config).fit()}
    assert rows["CBP as long, no teacher"]["mean"] == rows["CBP after warm-up"]["mean"]
    resumed = prepared(Run.open(tmp_path / "run"))
    assert {row["name"]: row for row in resumed.fit()} == rows


@pytest.mark.usefixtures("small_world")
def test_a_video_that_is_too_long_is_told_before_training(tmp_path, config, monkeypatch) -> None:
    monkeypatch.setattr("wtal.inference.long_videos.LONGEST", 60)
    with pytest.raises(WtalError, match=r"snippets, but a branch .* at most 60; train with --cbp.window"):
        new_trainer(tmp_path / "run", config)
    windows = with_settings(config, cbp={"window": 5}, vlp={"window": 5})
    new_trainer(tmp_path / "windows", windows)


def test_the_rate_is_of_this_process(monkeypatch) -> None:
    """Not of the epochs that an interrupted one did before it."""
    out = io.StringIO()
    monkeypatch.setattr("time.monotonic", iter((100.0, 102.0, 102.0)).__next__)
    with Reporter(Console(file=out, width=200)).work("W", 1000, "videos") as work:
        work.skip(900)
        work.advance(20)
    assert "W: 920/1000  10 videos/s  8 s left" in out.getvalue()


@pytest.mark.usefixtures("small_world")
def test_data_of_each_layout_train_alike(tmp_path, config) -> None:
    one = dataclasses.replace(
        config, schedule=dataclasses.replace(config.schedule, warmup_epochs=1, b_epochs=1, rounds=1, control=False)
    )
    tables = {}
    for layout in ("basnet", "wtalc"):
        run = Run.create(tmp_path / layout, Setup(layout=layout), one, {}, {})
        tables[layout] = prepared(run).fit()
    assert tables["basnet"] == tables["wtalc"]


@pytest.mark.usefixtures("small_world")
def test_training_never_reads_where_actions_are(tmp_path, config, monkeypatch) -> None:
    new_trainer(tmp_path / "seen", config).fit()
    trainer = new_trainer(tmp_path / "blind", config)
    blind = [dataclasses.replace(video, instances=None) for video in trainer.videos]
    trainer.videos = tuple(blind)
    trainer.data = dataclasses.replace(trainer.data, videos=(*blind, *trainer.data.subset("test")))
    trainer.fit()
    seen, blinded = weights(tmp_path / "seen"), weights(tmp_path / "blind")
    assert all(torch.equal(seen[key], blinded[key]) for key in seen)


@pytest.mark.usefixtures("small_world")
def test_own_videos_without_segments_get_no_localization_number(tmp_path, config) -> None:
    data = open_data("synthetic")
    root = data.videos[0].clip.parents[1]
    lines = [f"{video.id},{';'.join(video.labels)}" for video in data]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label", *lines]))
    np.save(tmp_path / "text.npy", data.text_features)
    for kind in ("rgb", "flow"):
        (tmp_path / kind).mkdir()
        for video in data:
            part = video.i3d[kind == "flow"]
            (tmp_path / kind / part.name).symlink_to(part)
    (tmp_path / "dataset.toml").write_text(
        f"""name = "mine"
classes = {json.dumps(data.classes)}
i3d = ["rgb", "flow"]
clip = "{root / "clip"}"
labels = "labels.csv"
text_features = "text.npy"
fps = 25
"""
    )
    run = Run.create(tmp_path / "run", Setup(dataset=str(tmp_path / "dataset.toml")), config, {}, {})
    for row in prepared(run).fit():
        assert row["kind"] == "video-level"
        assert 0 <= row["mean"] <= 100
        assert row["proposals_per_video"] >= 0
        assert "per_tiou" not in row


def test_video_level_map_is_the_definition() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 1]])
    # class 0: hits at ranks 1 and 3; class 1: at rank 1
    assert video_level_map(scores, labels) == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1) / 2)


@pytest.mark.usefixtures("small_world")
def test_open_data_is_made_once(tmp_path) -> None:
    first = open_data("synthetic")
    stamp = first.videos[0].i3d[0].stat().st_mtime_ns
    assert open_data("synthetic").videos[0].i3d[0].stat().st_mtime_ns == stamp


def test_the_table_fits_a_terminal() -> None:
    row = {"name": "CBP as long, no teacher", "kind": "localization", "mean": 100.0, "per_tiou": {}}
    row["per_tiou"] = {f"{tiou / 10:g}": 100.0 for tiou in range(1, 8)}
    text = io.StringIO()
    Console(file=text, width=80).print(table([row], "a title"))
    assert "…" not in text.getvalue()
    assert text.getvalue().count("100.0") == 8


def sdpa_rows(qkv: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, window: int | None) -> torch.Tensor:
    """wtal's attention as PyTorch's own, under a mask of all rows: [R, 3, H, D] -> [R, H, D]."""
    q, k, v = qkv.permute(1, 2, 0, 3)
    index = torch.arange(q.shape[1])
    inside = (index >= starts[:, None]) & (index < (starts + lengths)[:, None])  # [B, R]
    near = (index[:, None] - index).abs() <= (q.shape[1] if window is None else window)
    mask = ((inside[:, None] & inside[:, :, None]).any(0) & near) | torch.eye(q.shape[1], dtype=torch.bool)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    return out.transpose(0, 1).masked_fill(~inside.any(0)[:, None, None], 0)


@pytest.mark.usefixtures("small_world")
def test_an_epoch_has_the_same_losses_with_pytorchs_attention(tmp_path, config, monkeypatch) -> None:
    schedule = dataclasses.replace(config.schedule, warmup_epochs=1, b_epochs=1, f_epochs=1, rounds=1)
    config = dataclasses.replace(config, schedule=schedule)
    losses: dict[str, list[float]] = {"wtal": [], "sdpa": []}
    for name, found in losses.items():
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "log_epoch", lambda _, stage, values, to=found: to.extend(values.values()))
            if name == "sdpa":
                patch.setattr("wtal.models.blocks.temporal_attention_rows", sdpa_rows)
            new_trainer(tmp_path / name, config).fit()
    assert len(losses["wtal"]) >= 3  # the warm-up, B and F
    assert losses["wtal"] != losses["sdpa"]  # the other one did run
    assert losses["wtal"] == pytest.approx(losses["sdpa"], rel=1e-3)
