"""W-TALC's joint file: converted once, found again, never half there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from wtal.data import cache
from wtal.data.cache import cache_root, per_video_files
from wtal.errors import WtalError


@pytest.fixture
def parts() -> list[np.ndarray]:
    dtypes = (np.float32, np.float16, np.float64)
    return [np.full((index + 1, 4), index, dtype=dtypes[index % 3]) for index in range(5)]


@pytest.fixture
def source(tmp_path: Path, parts: list[np.ndarray]) -> Path:
    return write(tmp_path / "joint.npy", parts)


def write(path: Path, entries: list[object]) -> Path:
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    np.save(path, array, allow_pickle=True)
    return path


def test_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WTAL_CACHE", "/a")
    assert cache_root() == Path("/a")
    monkeypatch.delenv("WTAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_root() == Path("/b/wtal")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert cache_root() == Path("/c/.cache/wtal")


def test_rows_in_order_and_progress(source: Path, parts: list[np.ndarray]) -> None:
    calls: list[tuple[int, int]] = []
    files = per_video_files(source, 5, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    for path, part in zip(files, parts, strict=True):
        row = np.load(path)
        assert (row == part).all()
        assert row.dtype == (np.float16 if part.dtype == np.float16 else np.float32)
    assert all(path.is_relative_to(cache_root()) for path in files)
    assert not list(cache_root().rglob("*.partial"))


def test_converted_once_and_known_after_a_touch_or_a_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = per_video_files(source, 5)
    real_hash = cache._sha256
    hashed: list[Path] = []
    monkeypatch.setattr(cache, "_sha256", lambda path: hashed.append(path) or real_hash(path))
    monkeypatch.setattr(cache, "_convert", lambda *arguments: pytest.fail("converted again"))
    assert per_video_files(source, 5) == files
    assert hashed == []
    os.utime(source, ns=(1, 1))
    copied = Path(shutil.copy(source, tmp_path / "copy.npy"))
    assert per_video_files(source, 5) == files
    assert per_video_files(copied, 5) == files
    assert hashed == [source, copied]


def test_another_content_is_another_conversion(source: Path, parts: list[np.ndarray]) -> None:
    old = per_video_files(source, 5)
    write(source, [part + 1 for part in parts])
    os.utime(source, ns=(1, 1))
    new = per_video_files(source, 5)
    assert set(old).isdisjoint(new)
    assert (np.load(new[2]) == parts[2] + 1).all()


def test_an_interrupted_conversion_leaves_nothing(source: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        per_video_files(source, 5, interrupt)
    assert not [path for path in cache_root().rglob("*") if path.is_file()]
    assert len(per_video_files(source, 5)) == 5


def test_a_lost_or_damaged_cache_is_made_again(source: Path) -> None:
    folder = per_video_files(source, 5)[0].parent
    shutil.rmtree(folder)
    assert len(per_video_files(source, 5)) == 5
    for stamp in (folder.parent / "stamps").iterdir():
        stamp.write_text("{")
    assert len(per_video_files(source, 5)) == 5


def test_one_array_for_several_videos(tmp_path: Path) -> None:
    same = np.ones((2, 3), np.float32)
    files = per_video_files(write(tmp_path / "joint.npy", [same, np.zeros((1, 3)), same]), 3)
    assert [np.load(path).shape for path in files] == [(2, 3), (1, 3), (2, 3)]


def test_faults(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WtalError, match="features of 5 videos, expected 6"):
        per_video_files(source, 6)
    with pytest.raises(WtalError, match="entry 1 is a str, expected an array"):
        per_video_files(write(tmp_path / "text.npy", [np.ones((1, 2)), "text"]), 2)
    cut = tmp_path / "cut.npy"
    cut.write_bytes(source.read_bytes()[:-20])
    with pytest.raises(WtalError, match="damaged or truncated pickle"):
        per_video_files(cut, 5)
    (tmp_path / "file").touch()
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(WtalError, match=r"cannot be converted.*set WTAL_CACHE"):
        per_video_files(source, 5)
