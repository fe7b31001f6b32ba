"""Ambiguous intervals and labels that a run does not leave out: told before training, and by the report."""

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

from wtal.platform.device import Device
from wtal.platform.progress import Reporter
from wtal.report.study import study
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.recipe import load_recipe
from wtal.training.job import prepare

UNUSED = "note: 2 ambiguous intervals in 1 videos (Ambiguous_test.txt) are not used"
LABELLED = "note: 1 instances are labelled 'Ambiguous', and count as a class of its own"
TRAINED = "note: the label 'Ambiguous' of training videos is trained as a class of its own"


def new_run(root: Path, other: str, ambiguous: str) -> Run:
    """An untrained run on four videos of the classes Jump and ``other``, one of them for testing."""
    random = np.random.default_rng(0)
    (root / "i3d").mkdir()
    rows = [{"segment": [1, 5], "label": "Jump"}, {"segment": [7, 9], "label": other}]
    videos = [f"v{index}" for index in range(4)]
    for video in videos:
        np.save(root / "i3d" / f"{video}.npy", random.normal(size=(30, 16)).astype(np.float32))
    (root / "labels.json").write_text(json.dumps({video: ["Jump", other] for video in videos}))
    (root / "segments.json").write_text(json.dumps({"v3": rows}))
    (root / "dataset.toml").write_text(
        f'name = "mine"\nclasses = ["Jump", "{other}"]\ni3d = "i3d"\nlabels = "labels.json"\nfps = 25\n'
        'segments = "segments.json"\ntest = ["v3"]\n'
    )
    config = load_recipe("own").config
    config = dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, kind="cbp", warmup_epochs=1, control=False),
        cbp=dataclasses.replace(config.cbp, dim=16, heads=2),
        evaluate=dataclasses.replace(config.evaluate, ambiguous=ambiguous),
    )
    return Run.create(root / "run", Setup(dataset=str(root / "dataset.toml")), config, {}, {})


@pytest.mark.parametrize(
    ("file", "other", "ambiguous", "training", "report"),
    [
        (True, "Run", "keep", {UNUSED}, {UNUSED}),
        (True, "Run", "drop", set(), set()),
        (False, "Run", "keep", set(), set()),
        (False, "Ambiguous", "keep", {LABELLED, TRAINED}, {LABELLED}),
        (False, "Ambiguous", "drop", {TRAINED}, set()),
    ],
)
def test_what_is_not_used_is_told(tmp_path, monkeypatch, file, other, ambiguous, training, report) -> None:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    run = new_run(tmp_path, other, ambiguous)
    if file:
        (tmp_path / "Ambiguous_test.txt").write_text("v3  2.0 3.0\nv3  8.0 9.5\nv0  1.0 2.0\n")
    every = {UNUSED, LABELLED, TRAINED}
    said, later = io.StringIO(), io.StringIO()
    trainer = prepare(
        run, Device(torch.device("cpu")), Reporter(Console(file=said, width=500), log=logging.getLogger("test"))
    )
    assert {note for note in every if note in said.getvalue()} == training
    trainer.fit()
    study(run.folder, "cpu", Reporter(Console(file=later, width=500), log=logging.getLogger("test")))
    assert {note for note in every if note in later.getvalue()} == report
