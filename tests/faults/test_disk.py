"""A full disk: one clear error, the checkpoints before it whole, and a way to go on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from wtal.errors import WtalError
from wtal.platform.files import WriteError, check_writable, write_atomically
from wtal.runs.checkpoint import load_checkpoint
from wtal.runs.run import Run
from wtal.runs.setup import Setup

FULL = Path("/dev/full")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 KB: room for about four of the tiny run's checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("room", [0, 30, 200, 350])
def test_a_full_disk_ends_the_run_and_it_goes_on_later(
    room: int, small_disk, tiny, wtal, whole, outcome, record, long_form, tmp_path
) -> None:
    """``room``: KB that are left when training begins."""
    if room == 30 and not long_form:
        pytest.skip("runs with -m faults")
    filler = small_disk / "filler"
    filler.write_bytes(bytes((_free(small_disk) - room) * 1024))
    folder = small_disk / "run"
    done = wtal("train", *tiny.arguments(folder))
    assert done.code == 2, done.text
    error = [line for line in done.text.splitlines() if line.startswith("wtal-train: error: ")]
    assert len(error) == 1, done.text
    assert "No space left on device" in error[0]
    assert "Traceback" not in done.text
    assert "Logging error" not in done.text
    assert list(folder.rglob("*.tmp")) == []
    kept = sorted((folder / "checkpoints").glob("*.safetensors"))
    for path in kept:
        load_checkpoint(path)
    told = f"tmpfs with {room} KB free: one error, {len(kept)} whole checkpoints"
    filler.unlink()
    if (folder / "config.toml").is_file():
        assert f"go on with: wtal-train --resume {folder}" in error[0]
        shutil.copytree(folder, tmp_path / "run")  # to a disk with room
        resumed = wtal("train", "--resume", tmp_path / "run", "--threads", 1)
        assert resumed.code == 0, resumed.text
        assert outcome.of(tmp_path / "run").differences(outcome.of(whole)) == []
        told += "; with room again resumed to the same bits"
    record("full disk", "wtal-train", told)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["train", "eval", "report", "predict", "ablate"])
def test_a_full_disk_behind_stdout_is_not_one_of_the_files(
    command: str, tiny, whole, commands, record, tmp_path
) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    settings = (whole / "config.toml").read_text()
    recipe.write_text(settings[settings.index("[schedule]") :].replace("_epochs = 3", "_epochs = 1"))
    data = ["--dataset", tiny.toml]
    words = {
        "train": tiny.arguments(out),
        "eval": [whole],
        "report": [whole, "--out", out],
        "predict": [whole, tiny.toml.parent / "i3d", "--out", tmp_path / "found.csv"],
        "ablate": [*data, "--recipes", recipe, "--seeds", 0, "--runs", tmp_path / "runs", "--jobs", 1],
    }
    done = commands(command, *words[command], stdout=FULL)
    (line,) = done.stderr.splitlines()
    error = f"wtal-{command}: error: standard output cannot be written (No space left on device)"
    if command == "train":  # it has begun
        cure = f"earlier checkpoints are intact; when there is room, go on with: wtal-train --resume {out}"
        assert line == f"{error}; {cure}"
        assert commands("train", "--resume", out).returncode == 0
    else:
        assert line == error
    assert done.returncode == 2
    record("full disk behind stdout", f"wtal-{command}", "one error that names standard output")


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_bsize // 1024


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_leaves_what_was_there(call: str, code: int, tmp_path, monkeypatch) -> None:
    path = tmp_path / "kept"
    write_atomically(path, b"before")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(WriteError, match=os.strerror(code)):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["kept"]


@pytest.mark.parametrize(
    ("code", "told"), [(errno.ENOSPC, "when there is room, go on"), (errno.EIO, "once that is mended, go on")]
)
def test_room_is_asked_for_where_it_was_lacking(code: int, told: str, tiny, whole, monkeypatch, tmp_path) -> None:
    from wtal.training.job import start
    from wtal.training.trainer import Trainer

    shutil.copytree(whole, tmp_path / "run")

    def fail(*_: object) -> None:
        raise WriteError.of("somewhere", OSError(code, os.strerror(code)))

    monkeypatch.setattr(Trainer, "fit", fail)
    run = Run.open(tmp_path / "run")
    with pytest.raises(WtalError, match=f"{os.strerror(code)}.*; {told} with: wtal-train --resume"):
        start(run.setup, run.config, {}, resume=tmp_path / "run", quiet=True)


def test_a_log_that_cannot_be_written_is_an_error(tmp_path) -> None:
    from wtal.settings.config import RunConfig

    run = Run.create(tmp_path / "run", Setup(), RunConfig(), {}, {})
    (run.folder / "log.txt").symlink_to("/dev/full")
    with pytest.raises(WtalError, match=r"log\.txt: cannot be written \(No space left"):
        run.log.info("a line")
    for handler in run.log.handlers:
        with contextlib.suppress(OSError):
            handler.close()


def test_whether_a_file_can_be_written_is_checked_without_leaving_one(tmp_path) -> None:
    check_writable(tmp_path / "new" / "p.json")
    assert [*(tmp_path / "new").iterdir()] == []
    with pytest.raises(WtalError, match="is a folder"):
        check_writable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WtalError, match="cannot be written"):
        check_writable(tmp_path / "file" / "p.json")
