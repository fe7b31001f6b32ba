"""Run folders: made by one process, never by two, and never overwritten."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from wtal.errors import WtalError
from wtal.runs.run import Run, default_folder
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig
from wtal.training.job import start


def create(folder: Path, seed: int = 0, replace: bool = False) -> Run:
    return Run.create(folder, Setup(seed=seed), RunConfig(), {}, {}, replace=replace)


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_another_process_uses_is_left_alone(tmp_path: Path, replace: bool) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(WtalError, match="another process is training this run"):
            create(folder, replace=replace)
        assert [path.name for path in folder.iterdir()] == [".lock"]
    create(folder, replace=replace)


def test_a_run_is_replaced_only_if_told_to(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    (run.folder / "checkpoints" / "checkpoint-000001.safetensors").touch()
    (run.folder / "log.txt").write_text("before")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").touch()
    (run.folder / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WtalError, match="already exists"):
        create(run.folder, seed=1)
    assert Run.open(run.folder).setup.seed == 0
    create(run.folder, seed=1, replace=True)
    assert Run.open(run.folder).setup.seed == 1
    assert sorted(path.name for path in run.folder.iterdir()) == [
        ".lock", "checkpoints", "config.toml", "predictions", "versions.json"
    ]  # fmt: skip
    assert not list((run.folder / "checkpoints").iterdir())
    assert (tmp_path / "elsewhere" / "mine").exists()  # behind the link


def test_a_new_run_can_be_locked_at_once(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    run.lock()
    with pytest.raises(WtalError, match="another process is training this run"):
        Run.open(run.folder).lock()
    run.unlock()
    again = Run.open(run.folder)
    again.lock()
    again.unlock()


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [default_folder("kitchen/dataset.toml") for _ in range(4)]
    assert len({*folders}) == 4
    for seed, folder in enumerate(folders):
        assert folder.parent == Path("runs")
        create(folder, seed)


def test_a_run_that_cannot_begin_leaves_no_default_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WtalError, match="a path of this run is not UTF-8"):
        start(Setup(dataset=os.fsdecode(b"/d\xff/dataset.toml")), RunConfig(), {}, quiet=True)
    assert not list((tmp_path / "runs").iterdir())
