"""Damaged checkpoints: every one is noticed, and the one before is used, by all three commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from wtal.runs.run import Run

DAMAGE = {
    "cut short": lambda data: data[: len(data) // 2],
    "one bit flipped": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "of another program": lambda data: b"PK\x03\x04" + data,
}


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, with two checkpoints before its last."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    assert len(Run.open(folder).checkpoints.paths()) == 3
    return folder


@pytest.mark.parametrize("kind", DAMAGE)
def test_training_goes_on_from_the_one_before(kind: str, copy, whole, wtal, outcome, record) -> None:
    *_, before, newest = Run.open(copy).checkpoints.paths()
    newest.write_bytes(DAMAGE[kind](newest.read_bytes()))
    done = wtal("train", "--resume", copy, "--threads", 1)
    assert done.code == 0, done.text
    assert f"{newest}: " in done.text
    assert f"using the one before, {before.name}" in done.text
    assert outcome.of(copy).differences(outcome.of(whole)) == []
    record("damaged newest checkpoint", kind, "warning; the one before used; same bits at the end")


def test_evaluation_and_prediction_use_the_one_before(copy, whole, wtal, record, tmp_path) -> None:
    newest = Run.open(copy).checkpoints.newest()
    newest.write_bytes(newest.read_bytes()[:-1])
    np.save(tmp_path / "x.npy", np.zeros((50, 24), np.float32))
    for command, arguments in {"eval": [], "predict": [tmp_path / "x.npy", "--out", tmp_path / "found.json"]}.items():
        done = wtal(command, copy, *arguments)
        assert done.code == 0, done.text
        assert "warning: " in done.text
        assert "using the one before" in done.text
        refused = wtal(command, newest, *arguments)  # named itself, it is not silently another
        assert refused.code == 2
        assert f"{newest}: not a readable checkpoint" in refused.text
    record("damaged newest checkpoint", "wtal-eval, wtal-predict", "warning; the one before used")


def test_all_damaged_is_an_error_and_no_fresh_start(copy, wtal, record) -> None:
    paths = Run.open(copy).checkpoints.paths()
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1])
    for command in (("train", "--resume", copy), ("eval", copy)):
        done = wtal(*command)
        assert done.code == 2
        assert "every checkpoint is damaged (3 of them)" in done.text.splitlines()[-1]
    assert Run.open(copy).checkpoints.paths() == paths
    record("all checkpoints damaged", "wtal-train --resume, wtal-eval", "one error; nothing overwritten")


def test_a_run_without_a_checkpoint_starts_anew_but_cannot_be_evaluated(copy, whole, wtal, outcome) -> None:
    shutil.rmtree(copy / "checkpoints")
    done = wtal("eval", copy)
    assert done.code == 2
    assert "no checkpoint yet" in done.text
    assert wtal("train", "--resume", copy, "--threads", 1).code == 0
    assert outcome.of(copy).differences(outcome.of(whole)) == []


def test_another_number_of_checkpoints(tiny, wtal, tmp_path) -> None:
    done = wtal("train", *tiny.arguments(tmp_path / "run", keep_checkpoints=1))
    assert done.code == 0, done.text
    assert len(Run.open(tmp_path / "run").checkpoints.paths()) == 1
    done = wtal("train", *tiny.arguments(tmp_path / "none", keep_checkpoints=0))
    assert done.code == 2
    assert "--keep-checkpoints 0: expected" in done.text
    assert not (tmp_path / "none").exists()
