"""A run that goes on where something is no longer as it was: one line says what, and nothing of the run is lost."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wtal.errors import WtalError
from wtal.platform.distributed import ProcessError
from wtal.runs.checkpoint import load_checkpoint, save_checkpoint
from wtal.runs.resume import resumed_setup
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig
from wtal.training.job import start
from wtal.training.trainer import Trainer


@pytest.fixture
def moved(tiny, whole: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the data set and one of the finished run, which reads that copy."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny.toml.parent, data)
    shutil.copytree(whole, run)
    change(run / "config.toml", str(tiny.toml.parent), str(data))
    return data, run


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def features(data: Path, kind: str, name: str, rows: int = 0, columns: int = 0, value: float | None = None) -> None:
    """Rewrite one feature file with more rows or columns, or one other value."""
    path = data / kind / f"{name}.npy"
    found = np.pad(np.load(path), ((0, max(rows, 0)), (0, columns)))
    found = found[: rows if rows < 0 else None]
    if value is not None:
        found[3, 2] = value
    np.save(path, found)


def relabel(data: Path) -> None:
    for file in ("labels.csv", "segments.csv"):
        text = (data / file).read_text(encoding="utf-8")
        (data / file).write_text(re.sub("(v001,.*)Skip", r"\1Hop", text), encoding="utf-8")


def remove(data: Path) -> None:
    for file in ("labels.csv", "segments.csv"):
        text = (data / file).read_text(encoding="utf-8")
        (data / file).write_text(re.sub("v002,.*\n", "", text), encoding="utf-8")


def widen(data: Path, kind: str) -> None:
    for path in (data / kind).glob("*.npy"):
        features(data, kind, path.stem, columns=2)
    if kind == "clip":
        np.save(data / "text.npy", np.eye(3, 18, dtype=np.float32))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a video is longer": (lambda data: features(data, "i3d", "v000", rows=7), "v000 had 40 snippets, now 47"),
    "a video is shorter": (lambda data: features(data, "i3d", "v000", rows=-7), "v000 had 40 snippets, now 33"),
    "a video is gone": (remove, "1 of 7 training videos are missing, the first is v002"),
    "a video is new": (
        lambda data: change(data / "dataset.toml", '"v007", ', ""),
        "1 training videos are new, the first is v007",
    ),
    "a label is another": (relabel, "v001 was labelled Skip, now Hop"),
    "classes in another order": (
        lambda data: change(data / "dataset.toml", '["Hop", "Skip"', '["Skip", "Hop"'),
        "other classes",
    ),
    "I3D of another width": (lambda data: widen(data, "i3d"), "I3D features 24 wide, now 26"),
    "CLIP of another width": (lambda data: widen(data, "clip"), "CLIP features 16 wide, now 18"),
    "one video of another width": (
        lambda data: features(data, "i3d", "v003", columns=1),
        "video v003: its I3D features are 25 wide",
    ),
    "a value not finite": (lambda data: features(data, "i3d", "v003", value=np.nan), "nan in row 3, column 2"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_data_that_changed_are_named(kind: str, moved, wtal, record) -> None:
    data, run = moved
    before = files(run)
    does, told = CHANGES[kind]
    does(data)
    done = wtal("train", "--resume", run, "--threads", 1)
    assert done.code == 2, done.text
    assert told in the_error(done.text)
    assert files(run) == before
    record("data changed since the start", kind, "one error that names it; the run left as it was")


def the_error(text: str) -> str:
    assert "Traceback" not in text, text
    last = text.strip().splitlines()[-1]
    assert last.startswith("wtal-train: error: ")
    return last


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("log.txt", ".lock")
    }


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "before its first checkpoint"])
def test_data_that_are_away_cost_nothing(trained: bool, moved, wtal, record) -> None:
    data, run = moved
    if not trained:
        shutil.rmtree(run / "checkpoints")
    before = files(run)
    data.rename(data.with_name("unmounted"))
    done = wtal("train", "--resume", run, "--threads", 1)
    assert done.code == 2, done.text
    assert "dataset.toml" in the_error(done.text)
    assert files(run) == before
    data.with_name("unmounted").rename(data)
    done = wtal("train", "--resume", run, "--threads", 1)
    assert done.code == 0, done.text
    record(
        "data set away", "--resume, " + ("trained" if trained else "no checkpoint yet"), "one error; nothing removed"
    )


def test_a_checkpoint_without_these_facts_goes_on(moved, wtal, outcome) -> None:
    _, run = moved
    for path in Run.open(run).checkpoints.paths():
        found = load_checkpoint(path)
        old = {name: value for name, value in found.facts.items() if name not in ("training", "counted")}
        save_checkpoint(path, found.tensors, old)
    done = wtal("train", "--resume", run, "--threads", 1)
    assert done.code == 0, done.text


@pytest.mark.parametrize("fact", ["stage", "config", "rows", "losses"])
def test_a_checkpoint_that_lacks_something_is_one_error(fact: str, moved, wtal) -> None:
    _, run = moved
    newest = Run.open(run).checkpoints.newest()
    found = load_checkpoint(newest)
    save_checkpoint(newest, found.tensors, {name: value for name, value in found.facts.items() if name != fact})
    done = wtal("train", "--resume", run, "--threads", 1)
    assert done.code == 2, done.text
    assert f"{newest}: training cannot go on from it (KeyError: '{fact}')" in the_error(done.text)


def test_a_lost_process_says_how_to_go_on(moved, monkeypatch) -> None:
    _, folder = moved
    run = Run.open(folder)

    def lost(*_: object) -> None:
        raise ProcessError("another process of this run ended")

    monkeypatch.setattr(Trainer, "fit", lost)
    with pytest.raises(ProcessError, match="another process of this run ended; go on with: wtal-train --resume"):
        start(run.setup, run.config, {}, resume=folder, quiet=True)


def test_a_path_that_cannot_be_written_down_is_named(tmp_path) -> None:
    with pytest.raises(WtalError, match="a path of this run is not UTF-8"):
        Run.create(tmp_path / "run", Setup(dataset=os.fsdecode(b"/d\xff/dataset.toml")), RunConfig(), {}, {})
    assert not (tmp_path / "run").exists()


def test_another_network_is_named(moved, wtal, record) -> None:
    _, run = moved
    change(run / "config.toml", "\ndim = 16", "\ndim = 32")
    done = wtal("train", "--resume", run, "--threads", 1)
    assert done.code == 2
    assert "was trained with cbp.dim 16, the run's settings have 32 now" in the_error(done.text)
    record("config.toml edited", "cbp.dim, --resume", "one error that names it")


@pytest.mark.parametrize(
    "left", [(), ("versions.json",), ("checkpoints", "predictions"), (".config.toml.0a1b2c3d.tmp",)]
)
def test_a_run_folder_half_made_may_be_used(left: tuple[str, ...], tiny, tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).touch() if "." in name else (folder / name).mkdir()
    Run.create(folder, Setup(), RunConfig(), {}, {})
    assert Run.open(folder).setup == Setup()
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [".lock", "config.toml", "versions.json"]
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    (tmp_path / "other" / "checkpoints" / "mine.txt").touch()
    with pytest.raises(WtalError, match="already exists"):
        Run.create(tmp_path / "other", Setup(), RunConfig(), {}, {})


def test_a_kill_while_the_run_folder_is_made_leaves_its_name_free(tmp_path, monkeypatch) -> None:
    """Whatever the order of writing is: cut off after each file."""
    import wtal.runs.run

    real = wtal.runs.run.write_atomically
    for files_written in (0, 1):
        left = files_written

        def write(path: Path, data: bytes) -> None:
            nonlocal left
            if left == 0:
                raise SystemExit
            left -= 1
            real(path, data)

        folder = tmp_path / str(files_written)
        with monkeypatch.context() as patch:
            patch.setattr(wtal.runs.run, "write_atomically", write)
            with pytest.raises(SystemExit):
                Run.create(folder, Setup(), RunConfig(), {}, {})
        Run.create(folder, Setup(), RunConfig(), {}, {})


def test_options_are_heeded_or_refused() -> None:
    before = Setup(seed=5, skip_bad_batches=4, keep_checkpoints=7, device="cpu", threads=2)
    config = dataclasses.replace(RunConfig(), cbp=dataclasses.replace(RunConfig().cbp, dim=64))

    def resumed(given: set[str], setup: Setup | None = None, settings: RunConfig | None = None) -> Setup:
        asked = settings or RunConfig()
        return resumed_setup(before, setup or Setup(), before_config=config, config=asked, given=given)

    assert resumed(set()) == before
    # Asked for by name, also where the value is the usual one.
    assert resumed({"skip_bad_batches"}).skip_bad_batches == 0
    assert resumed({"keep_checkpoints"}).keep_checkpoints == 3
    assert resumed({"device"}).device == "auto"
    with pytest.raises(WtalError, match=r"--seed does not go with --resume: the run has 5"):
        resumed({"seed"})
    with pytest.raises(WtalError, match=r"--cbp.dim does not go with --resume: the run has 64"):
        resumed({"cbp.dim"})
    assert resumed({"seed", "cbp.dim", "cbp.heads"}, before, config) == before  # the run's own, said again


def test_a_run_remembers_how_it_goes_on(moved, wtal) -> None:
    _, run = moved
    settings = (run / "config.toml").read_text().split("\n\n", 1)[1]
    done = wtal("train", "--resume", run, "--threads", 2, "--keep-checkpoints", 2)
    assert "instead of threads 1: from here on, other bits" in done.text
    assert (Run.open(run).setup.threads, Run.open(run).setup.keep_checkpoints) == (2, 2)
    assert (run / "config.toml").read_text().split("\n\n", 1)[1] == settings
    assert "other bits" not in wtal("train", "--resume", run).text


def test_the_very_options_of_the_run_may_be_repeated(moved, wtal, tiny) -> None:
    data, run = moved
    again = dataclasses.replace(tiny, toml=data / "dataset.toml").arguments(run)
    done = wtal("train", "--resume", run, *again)
    assert done.code == 0, done.text
    done = wtal("train", "--resume", run, "--schedule.no-control")
    assert done.code == 2
    assert "--schedule.control does not go with --resume: the run has True" in the_error(done.text)
    done = wtal("train", "--resume", run, "--out", run.parent / "other")
    assert "--out does not go with --resume" in the_error(done.text)
    assert json.loads((run / "metrics.json").read_text())["rows"]
