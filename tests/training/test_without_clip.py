"""A data set without CLIP features: CBP alone, from training to prediction."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import wtal
from wtal.cli.train import command
from wtal.data.open import open_data
from wtal.errors import WtalError
from wtal.inference.saved_model import detect_in_folder, detect_test_videos, open_run
from wtal.platform.device import Device
from wtal.platform.progress import Reporter
from wtal.report.study import study
from wtal.runs.checkpoint import load_checkpoint
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig
from wtal.settings.recipe import from_table, load_recipe
from wtal.training.clip_needs import check_clip
from wtal.training.job import prepare
from wtal.training.schedule import schedule
from wtal.training.trainer import Trainer

CPU = Device(torch.device("cpu"))
SHORT = {
    "schedule": {"warmup_epochs": 2, "f_epochs": 1, "b_epochs": 1, "self_training": 2, "control": True},
    "optimizer": {"ema": 0.5},
    "batch": {"size": 3, "snippets": 32},
    "cbp": {"dim": 8, "heads": 2, "levels": 2},
    "vlp": {"heads": 2, "blocks": 1},
}
ROWS = ["CBP after warm-up", "CBP as long, no teacher", "CBP after self-training 1", "CBP after self-training 2"]


@pytest.fixture
def config() -> RunConfig:
    return from_table(SHORT, load_recipe("own").config, "here")


@pytest.fixture
def toml(tmp_path: Path, write_own: Callable[..., Path], monkeypatch) -> Path:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    return write_own(tmp_path / "mine")


@pytest.fixture
def with_clip(tmp_path: Path, write_own: Callable[..., Path], toml: Path) -> Path:
    """The same videos with CLIP features."""
    path = write_own(
        tmp_path / "both", extra='clip = "clip"\ntext_features = "text.npy"\ntrain_segments = "train_segments.csv"'
    )
    path.with_name("clip").mkdir()
    random = np.random.default_rng(5)
    for file in path.with_name("i3d").iterdir():
        np.save(path.with_name("clip") / file.name, random.normal(size=(30, 8)).astype(np.float32))
    np.save(path.with_name("text.npy"), np.eye(2, 8, dtype=np.float32))
    return path


def new(folder: Path, toml: Path, config: RunConfig, given: tuple[str, ...] = ()) -> Trainer:
    return prepared(Run.create(folder, Setup(dataset=str(toml)), config, {}, {}), given)


def prepared(run: Run, given: tuple[str, ...] = ()) -> Trainer:
    return prepare(run, CPU, Reporter(Console(quiet=True), True, run.log), given=given)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(Run.open(folder).checkpoints.newest()).tensors


def test_the_schedule_of_cbp_alone() -> None:
    config = from_table({"schedule": {"f_epochs": 3, "rounds": 2}}, RunConfig(), "here").schedule
    assert [stage.name for stage in schedule(config, has_clip=False)] == ["warmup"]
    taught = dataclasses.replace(config, self_training=2, control=True)
    alone = schedule(taught, has_clip=False)
    assert alone == schedule(dataclasses.replace(taught, kind="cbp"), has_clip=True)
    assert [(s.name, s.student, s.teacher, s.start, s.epochs) for s in alone[1:]] == [
        ("control", "control", None, "cbp", 6),
        ("S1", "cbp", "cbp", None, 3),
        ("S2", "cbp", "cbp", None, 3),
    ]
    assert [stage.row for stage in alone] == ROWS
    # a control has something to compare with, and lasts as long
    assert [s.name for s in schedule(dataclasses.replace(config, control=True), has_clip=False)] == ["warmup"]
    both = schedule(taught, has_clip=True)
    assert [s.name for s in both] == ["warmup", "zero-shot", "control", "S1", "S2", "B1", "F1", "B2", "F2", "ensemble"]
    assert both[2].epochs == sum(s.epochs for s in both if s.student == "cbp" and s.teacher)


def test_cbp_alone_from_training_to_prediction(tmp_path: Path, toml: Path, config: RunConfig, monkeypatch) -> None:
    monkeypatch.setattr("wtal.inference.branches.load_clip", lambda *_: pytest.fail("CLIP's weights are asked for"))
    rows = new(tmp_path / "run", toml, config).fit()
    assert [row["name"] for row in rows] == ROWS
    assert all(row["kind"] == "localization" and row["videos"] == 4 for row in rows)
    assert not any(name.startswith(("vlp", "text")) for name in weights(tmp_path / "run"))
    found = open_run(tmp_path / "run", "cpu")
    listed = detect_test_videos(found, None)
    assert wtal.evaluate(listed, found.data.subset("test")).mean == pytest.approx(rows[-1]["mean"])
    model = wtal.load(tmp_path / "run", "cpu")
    assert (model.i3d_dim, model.clip_dim) == (12, None)
    features = toml.with_name("i3d")
    grid: dict[str, float | None] = {}
    # CLIP features that nobody reads may be named
    predicted = detect_in_folder(tmp_path / "run", features, features, grid, None, "cpu").detections
    for video, detections in listed.items():
        assert model.detect(features / f"{video}.npy") == predicted[video] != []
        assert [d.score for d in detections] == pytest.approx([d.score for d in predicted[video]], abs=1e-5)
    for branch in ("vlp", "ensemble"):
        told = f"{branch}.* was trained without CLIP features and has no VLP branch, expected cbp"
        with pytest.raises(WtalError, match=told):
            detect_test_videos(found, branch)
        with pytest.raises(WtalError, match=told):
            detect_in_folder(tmp_path / "run", features, features, grid, branch, "cpu")
        with pytest.raises(WtalError, match=told):
            model.scores(features / "v00.npy", clip=np.zeros((4, 8), np.float32), branch=branch)
    seen = study(tmp_path / "run", "cpu", Reporter(Console(quiet=True), True))
    assert (seen.sources, seen.trouble) == (("cbp",), "")
    assert seen.analyses["cbp"].mean == pytest.approx(rows[-1]["mean"], abs=0.5)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("saves", [2, 5, 7, 9])
def test_it_resumes_to_the_same_bits(tmp_path: Path, toml: Path, config: RunConfig, monkeypatch, saves: int) -> None:
    rows = new(tmp_path / "whole", toml, config).fit()
    real, count = Trainer.save, 0

    def save(self: Trainer, students: object) -> Path:
        nonlocal count
        path = real(self, students)
        count += 1
        if count == saves:
            raise KilledError
        return path

    trainer = new(tmp_path / "cut", toml, config)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", save)
        with pytest.raises(KilledError):
            trainer.fit()
    assert prepared(Run.open(tmp_path / "cut")).fit() == rows
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_kind_cbp_leaves_clip_features_alone(tmp_path: Path, toml: Path, with_clip: Path, config: RunConfig) -> None:
    alone = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, kind="cbp"))
    rows = {"without": new(tmp_path / "without", toml, config).fit()}
    for file in with_clip.with_name("clip").iterdir():
        file.write_bytes(b"not features")
    rows["unread"] = new(tmp_path / "unread", with_clip, alone).fit()
    # What pseudo-labels are worth is told where training videos are annotated, and changes nothing.
    assert "pseudo_labels" not in rows["without"][-1]
    assert set(rows["unread"][-1].pop("pseudo_labels")) >= {"foreground precision", "background recall"}
    rows["unread"][-2].pop("pseudo_labels")
    assert rows["unread"] == rows["without"]
    one, other = weights(tmp_path / "without"), weights(tmp_path / "unread")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_self_training_goes_before_both_branches(tmp_path: Path, with_clip: Path, config: RunConfig) -> None:
    rows = [row["name"] for row in new(tmp_path / "run", with_clip, config).fit()]
    assert rows == [ROWS[0], "VLP zero-shot", *ROWS[1:], "VLP after B", "CBP after F", "ensemble"]


def test_a_run_goes_on_with_the_features_that_it_began_with(
    tmp_path: Path, toml: Path, with_clip: Path, config: RunConfig
) -> None:
    for name, first, then, told in (
        ("a", toml, with_clip, "was trained without CLIP features, now there are some"),
        ("b", with_clip, toml, "was trained with CLIP features, now there are none"),
    ):
        new(tmp_path / name, first, config).save(())
        path = tmp_path / name / "config.toml"
        path.write_text(path.read_text().replace(str(first), str(then)))
        with pytest.raises(WtalError, match=told):
            prepared(Run.open(tmp_path / name))


@pytest.mark.parametrize(
    ("sections", "given", "told"),
    [
        ({"schedule": {"kind": "alternating"}}, (), "--schedule.kind alternating needs the VLP branch"),
        ({"schedule": {"kind": "online"}}, (), "--schedule.kind online needs the VLP branch"),
        ({"schedule": {"ensemble_epochs": 3}}, (), "--schedule.ensemble-epochs 3 needs the VLP branch"),
        ({"localize": {"branch": "vlp"}}, (), "--localize.branch vlp needs the VLP branch"),
        ({"localize": {"branch": "ensemble"}}, (), "--localize.branch ensemble needs the VLP branch"),
        ({}, ("seed", "vlp.heads"), "--vlp.heads needs the VLP branch"),
        ({}, ("schedule.b_epochs",), "--schedule.b-epochs needs the VLP branch"),
        ({}, ("distill.b_foreground",), "--distill.b-foreground needs the VLP branch"),
        ({}, ("clip_weights",), "--clip-weights needs the VLP branch"),
        ({}, ("schedule.f_epochs",), "--schedule.f-epochs needs steps with a teacher"),
        ({}, ("distill.f_background",), "--distill.f-background needs steps with a teacher"),
    ],
)
def test_what_needs_clip_features_is_one_line(toml: Path, sections: dict, given: tuple[str, ...], told: str) -> None:
    data, setup = open_data(str(toml)), Setup(dataset=str(toml))
    config = from_table(sections, load_recipe("own").config, "here")
    for kind in ("auto", "cbp") if "kind" not in sections.get("schedule", {}) else (config.schedule.kind,):
        asked = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, kind=kind))
        with pytest.raises(WtalError) as caught:
            check_clip(data, setup, asked, given)
        assert str(caught.value).startswith(told)
        assert "\n" not in str(caught.value)
        if kind != "cbp":
            assert f"{toml} has no CLIP features: " in str(caught.value)


def test_what_cbp_alone_heeds_is_no_error(toml: Path) -> None:
    data, setup = open_data(str(toml)), Setup(dataset=str(toml))
    config = from_table({"schedule": {"self_training": 1}}, load_recipe("own").config, "here")
    given = ("schedule.f_epochs", "schedule.control", "distill.f_foreground", "cbp.dim", "seed", "schedule.kind")
    assert check_clip(data, setup, config, given) == f"{toml} has no CLIP features: CBP is trained alone"
    lonely = load_recipe("own").config
    assert "so there is no control" in check_clip(data, setup, lonely, ("schedule.control",))


def test_a_folder_of_clip_features_is_to_be_whole(with_clip: Path) -> None:
    with_clip.with_name("clip").joinpath("v03.npy").unlink()
    with pytest.raises(WtalError, match=r"no features for 1 of 11 videos \(v03\), expected .*clip/v03\.npy"):
        open_data(str(with_clip), need_clip=True)
    assert open_data(str(with_clip), need_clip=True, allow_missing=True).missing == ("v03",)


def test_the_command(tmp_path: Path, toml: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    short = [f"--{s}.{k.replace('_', '-')}={v}" for s in ("batch", "cbp") for k, v in SHORT[s].items()]
    common = ["--dataset", "mine/dataset.toml", *short, "--threads", "1"]
    assert command([*common, "--out", "run", "--schedule.warmup-epochs", "1"]) == 0
    told = capsys.readouterr().out
    assert "dataset.toml has no CLIP features: CBP is trained alone" in " ".join(told.split())
    assert "VLP" not in told
    assert [row["name"] for row in json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]] == ROWS[:1]
    with pytest.raises(WtalError, match=r"^--schedule\.kind alternating needs the VLP branch, but "):
        command([*common, "--out", "paper", "--recipe", "paper"])
    assert not (tmp_path / "paper").exists()


@pytest.mark.slow
def test_two_processes_train_cbp_alone(tmp_path: Path, toml: Path) -> None:
    options = ["--dataset", str(toml), "--schedule.self-training", "1", "--schedule.f-epochs", "1", "--threads", "1"]
    options += ["--schedule.warmup-epochs", "2", "--batch.size", "3", "--cbp.dim", "8", "--cbp.heads", "2"]
    options += ["--cbp.dropout", "0", "--cbp.input-dropout", "0", "--cbp.output-dropout", "0", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    rows = []
    for launch in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]):
        out = tmp_path / f"run{len(launch)}"
        words = [sys.executable, "-P", *launch, "-m", "wtal.cli.train", *options, "--out", str(out)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        rows.append(json.loads(done.stdout)["rows"])
    assert [row["name"] for row in rows[0]] == [row["name"] for row in rows[1]]
    one, two = weights(tmp_path / "run0"), weights(tmp_path / "run5")
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-5)
