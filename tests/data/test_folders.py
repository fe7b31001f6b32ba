"""Folders as people have them: what macOS leaves, a trash, links to folders, to nothing, and in circles."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from wtal.data.annotations import read_annotations
from wtal.data.catalog import open_dataset
from wtal.errors import WtalError
from wtal.features.manifest import check_settings
from wtal.features.video_list import check_there, find_videos
from wtal.platform.folders import walk


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_hidden_files_and_folders_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "._a.mp4", tmp_path / ".mp4", tmp_path / "in" / "b.mkv")
    touch(
        tmp_path / ".Trash-1000" / "files" / "c.mp4", tmp_path / "__MACOSX" / "._b.mkv", tmp_path / "in" / ".DS_Store"
    )
    found = find_videos([tmp_path])
    assert found.videos == {"a": tmp_path / "a.mp4", "b": tmp_path / "in" / "b.mkv"}
    assert found.others == ()


def test_what_is_asked_for_by_name_may_be_hidden(tmp_path: Path) -> None:
    touch(tmp_path / ".cache" / "a.mp4")
    assert list(find_videos([tmp_path / ".cache"]).videos) == ["a"]


def test_links_to_folders_are_searched_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "disk" / "a.mp4", tmp_path / "disk" / "deep" / "b.mp4", tmp_path / "videos" / "c.mp4")
    (tmp_path / "videos" / "disk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "deep" / "up").symlink_to(tmp_path / "videos")
    (tmp_path / "videos" / "self").symlink_to(tmp_path / "videos")
    (tmp_path / "videos" / "again.mp4").symlink_to(tmp_path / "videos" / "c.mp4")
    videos = tmp_path / "videos"
    assert list(walk(videos)) == [
        videos / "again.mp4",
        videos / "c.mp4",
        videos / "disk" / "a.mp4",
        videos / "disk" / "deep" / "b.mp4",
    ]
    assert set(find_videos([videos]).videos) == {"a", "b", "c", "again"}


def test_a_folder_and_a_link_to_it_are_one(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "a.mp4")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert find_videos([tmp_path]).videos == {"a": tmp_path / "real" / "a.mp4"}


def test_links_to_nothing_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "disk").symlink_to(tmp_path / "unmounted")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "nowhere.txt")
    found = find_videos([tmp_path])
    assert set(found.videos) == {"a", "b", "disk"}
    assert found.others == (tmp_path / "notes.txt",)
    with pytest.raises(WtalError, match=r"b\.mp4.*disk.*: no such file \(2 of 3 videos missing\)"):
        check_there(found.videos)


def test_hidden_files_change_no_layout(content: Mapping, write_layout: Callable[..., Path]) -> None:
    for layout in ("wtalc", "basnet", "actionformer"):
        root = write_layout(layout, content)
        plain = open_dataset("thumos14", root)
        for path in [path for path in root.rglob("*") if not path.name.startswith(".")]:
            path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
        assert open_dataset("thumos14", root).videos == plain.videos
    root = write_layout("wtalc", content)
    shutil.copytree(root / "Thumos14reduced-Annotations", root / ".Old-Annotations")
    assert len(read_annotations(root).videos) == len(content)


def test_hidden_files_make_no_joint_layout(tmp_path: Path, content: Mapping, write_layout: Callable[..., Path]) -> None:
    root = write_layout("basnet", content)
    for subset in ("train", "test"):
        shutil.rmtree(root / "features" / subset)
        touch(root / "features" / subset / "._x.npy")
    with pytest.raises(WtalError, match=r"expected \S+/features/\w+/rgb/video_"):
        open_dataset("thumos14", root)


def test_a_hidden_file_is_no_manifest(tmp_path: Path) -> None:
    touch(tmp_path / "manifest" / "._a.json")
    check_settings(tmp_path, {"fps": 25})
    touch(tmp_path / "manifest" / "a.json")
    with pytest.raises(WtalError, match="missing, expected the settings"):
        check_settings(tmp_path, {"fps": 25})
