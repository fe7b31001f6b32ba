"""Data sets on whose test videos no mAP can be measured: told before training, trained to the end, resumable."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from wtal.cli.eval import command as evaluation_command
from wtal.data.catalog import open_folder
from wtal.data.dataset_toml import held_out_fifth, open_own
from wtal.errors import WtalError
from wtal.evaluation.table import caption, table
from wtal.platform.device import Device
from wtal.platform.progress import Reporter
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.recipe import load_recipe
from wtal.training import trainer as trainer_module
from wtal.training.job import prepare
from wtal.training.trainer import Trainer

BACKGROUND = "v0"
"""Of these five, the first by the hash that chooses the held-out fifth."""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """``write(extra, labels)`` writes a data set of five videos with every class in each, and returns its TOML file."""
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))

    def write(extra: str = "", background: bool = True, segments: bool = True) -> Path:
        random = np.random.default_rng(0)
        labels = {f"v{index}": ["Jump", "Run"] for index in range(5)}
        if background:
            labels[BACKGROUND] = []
        for folder, width in (("i3d", 16), ("clip", 8)):
            (tmp_path / folder).mkdir()
            for video in labels:
                np.save(tmp_path / folder / f"{video}.npy", random.normal(size=(30, width)).astype(np.float32))
        np.save(tmp_path / "text.npy", random.normal(size=(2, 8)))
        (tmp_path / "labels.json").write_text(json.dumps(labels))
        rows = [{"segment": [1, 5], "label": "Jump"}, {"segment": [7, 9], "label": "Run"}]
        (tmp_path / "segments.json").write_text(json.dumps({video: rows for video in labels if labels[video]}))
        (tmp_path / "dataset.toml").write_text(
            'name = "mine"\nclasses = ["Jump", "Run"]\ni3d = "i3d"\nclip = "clip"\nlabels = "labels.json"\nfps = 25\n'
            + 'text_features = "text.npy"\n'
            + ('segments = "segments.json"\n' if segments else "")
            + extra
        )
        return tmp_path / "dataset.toml"

    return write


def prepared(run: Run, told: io.StringIO) -> Trainer:
    reporter = Reporter(Console(file=told, width=500), log=logging.getLogger("test"))
    return prepare(run, Device(torch.device("cpu")), reporter)


def new_run(folder: Path, dataset: Path) -> Run:
    config = load_recipe("own").config
    config = dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, warmup_epochs=1, b_epochs=0, f_epochs=1, control=False),
        cbp=dataclasses.replace(config.cbp, dim=16, heads=2),
        vlp=dataclasses.replace(config.vlp, heads=2),
    )
    return Run.create(folder, Setup(dataset=str(dataset)), config, {}, {})


@pytest.mark.parametrize(
    ("extra", "told", "segments"),
    [
        ("test = []\n", "no test video", True),
        (f'test = ["{BACKGROUND}"]\n', f"none of the 1 test videos has an action ({BACKGROUND})", True),
        (f'test = ["{BACKGROUND}"]\n', f"none of the 1 test videos has an action ({BACKGROUND})", False),
    ],
)
def test_it_is_told_before_training_and_the_table_has_no_number(tmp_path, write, extra, told, segments) -> None:
    toml = write(extra, background=extra != "test = []\n", segments=segments)
    said = io.StringIO()
    trainer = prepared(new_run(tmp_path / "run", toml), said)
    assert f"note: {toml}: {told}, so training can tell no mAP; list videos with an action under 'test'" in (
        said.getvalue()
    )
    rows = trainer.fit()
    assert [row["name"] for row in rows] == [stage.row for stage in trainer.stages]
    assert all(row["kind"] == "unmeasured" and row["mean"] is None for row in rows)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"] == rows
    shown = io.StringIO()
    Console(file=shown, width=100).print(table(rows, caption(trainer.data, rows)))
    assert f"mine: no mAP: {told}" in " ".join(shown.getvalue().split())
    assert "nan" not in shown.getvalue()
    with pytest.raises(WtalError, match=r"run: no.* in mine, there is nothing to measure"):
        evaluation_command([str(tmp_path / "run"), "--device", "cpu"])


def test_a_run_that_ended_at_its_first_row_goes_on(tmp_path, write, monkeypatch) -> None:
    run = new_run(tmp_path / "run", write(f'test = ["{BACKGROUND}"]\n'))

    def fails(*arguments: object) -> None:
        raise WtalError("ground truth: no instance")

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "measure", fails)
        with pytest.raises(WtalError, match="no instance"):
            prepared(run, io.StringIO()).fit()
    trainer = prepared(Run.open(tmp_path / "run"), io.StringIO())
    assert (trainer.stage_index, trainer.epoch) == (0, 1)  # the warm-up is not trained again
    assert len(trainer.fit()) == len(trainer.stages)


def test_the_automatic_hold_out_has_an_action(write) -> None:
    labels = {f"v{index}": ["Jump", "Run"] for index in range(5)}
    usual = held_out_fifth(labels)
    assert usual == {BACKGROUND}
    with_background = held_out_fifth({**labels, BACKGROUND: []})
    assert BACKGROUND in with_background
    assert len(with_background) == 2
    data = open_own(write())
    assert {video.id for video in data.subset("test")} == with_background
    assert any(video.instances for video in data.subset("test"))
    assert not data.test_notes


def test_background_alone_is_held_out_where_every_action_is_needed_for_training() -> None:
    assert held_out_fifth({"a": [], "b": ["Jump"]}) == {"a"}


def test_an_empty_list_of_test_videos_is_named(tmp_path, write) -> None:
    toml = write('test = "test.txt"\n', background=False)
    (tmp_path / "test.txt").write_text("\n \n")
    with pytest.raises(WtalError, match=r"test\.txt: no video id; .*test = \[\] in dataset\.toml"):
        open_own(toml)


def test_an_empty_split_file_of_basnet_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    for subset in ("train", "test"):
        (tmp_path / subset).mkdir()
        np.save(tmp_path / subset / f"{subset}1.npy", np.ones((5, 4), np.float32))
    rows = [{"segment": [0, 1], "label": "Jump"}]
    database = {f"{subset}1": {"subset": subset, "annotations": rows} for subset in ("train", "test")}
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    (tmp_path / "split_test.txt").write_text("")
    with pytest.raises(WtalError, match=r"split_test\.txt: no video id; without this file the annotations choose"):
        open_folder(tmp_path)
    (tmp_path / "split_test.txt").unlink()
    assert not open_folder(tmp_path).test_notes
    database["test1"]["annotations"] = []
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    (note,) = open_folder(tmp_path).test_notes
    assert "gt.json: none of the 1 test videos has an action (test1), so training can tell no mAP" in note
