"""Which videos there are, and which of them a data set's annotations speak of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wtal.data.synthetic.write_layouts import Record, write_annotations
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.features.video_list import check_there, find_videos, layout_targets


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def test_videos_are_found_in_folders_lists_and_by_name(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a/x.mp4", "a/deep/y.MKV", "a/notes.md", "a/.z.mp4", "b/odd.name")))
    (tmp_path / "list.txt").write_text("a/x.mp4\n\nb/odd.name\n")
    assert find_videos([tmp_path / "a"]).videos == {"x": tmp_path / "a/x.mp4", "y": tmp_path / "a/deep/y.MKV"}
    assert list(find_videos([tmp_path / "list.txt", tmp_path / "a"]).videos) == ["odd", "x", "y"]
    with pytest.raises(WtalError, match="no video, expected files such as"):
        find_videos([tmp_path / "b"])
    touch(tmp_path / "a/deep/x.webm")
    with pytest.raises(WtalError, match=r"x\.mp4 and .*x\.webm have the same name|x\.webm and .*x\.mp4 have the same"):
        find_videos([tmp_path / "a"])


def refused(*places: Path) -> str:
    with pytest.raises(WtalError) as caught:
        find_videos(places)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_with_other_endings_are_told(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("x.mp4", "notes.md", "deep/y.ogv", "deep/z.mp4v", "old.divx", ".hidden.md")))
    found = find_videos([tmp_path])
    assert set(found.videos) == {"x", "y", "old"}
    assert set(found.others) == {tmp_path / "notes.md", tmp_path / "deep/z.mp4v"}


def test_all_names_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    touch(tmp_path / "good.mp4", tmp_path / "x..y.mp4", tmp_path / "a/good.webm", tmp_path / "deep/ spaces .mp4")
    told = refused(tmp_path)
    assert told.startswith("3 names cannot be used: ")
    for name in ("x..y", "good.webm", "' spaces '"):
        assert name in told
    (tmp_path / "two\nlines.mp4").touch()
    assert "4 names cannot be used: " in refused(tmp_path)
    (tmp_path / f"{'x' * 240}.mp4").touch()
    assert "expected a name of at most 230 bytes" in refused(tmp_path)
    with open(os.fsencode(tmp_path) + b"/\xff.mp4", "wb"):
        told = refused(tmp_path)
    assert told.startswith("6 names")
    told.encode()


@pytest.mark.parametrize("name", ["two\nlines", " x", "x ", "\udcff", "x..y", "x" * 240])
def test_a_name_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.mp4").touch()
    assert "expected" in refused(tmp_path)


def test_lists_may_have_comments_and_a_byte_order_mark(tmp_path: Path) -> None:
    touch(tmp_path / "x.mp4", tmp_path / "y.mp4")
    (tmp_path / "list.txt").write_bytes("\ufeffx.mp4\r\n# the second half\r\n  y.mp4\r\n".encode())
    assert list(find_videos([tmp_path / "list.txt"]).videos) == ["x", "y"]
    assert refused(tmp_path / "no.txt") == f"{tmp_path / 'no.txt'}: no such file, expected a text file"


def test_missing_files_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "x.mp4")
    (tmp_path / "list.txt").write_text("x.mp4\nb.mp4\na.mp4\n")
    with pytest.raises(WtalError, match=r"a\.mp4, .*b\.mp4: no such file \(2 of 3 videos missing\)"):
        check_there(find_videos([tmp_path / "list.txt"]).videos)


RECORDS = [Record(f"v{n}", "train" if n < 3 else "test", 10.0, (Instance(1.0, 2.0, "Run"),)) for n in range(5)]


def test_videos_that_the_annotations_do_not_name_are_told(tmp_path: Path) -> None:
    write_annotations(tmp_path, "basnet", RECORDS, ["Run"])
    planned = layout_targets({f"v{n}": tmp_path / f"v{n}.mp4" for n in (0, 3, 7, 8)}, tmp_path, "basnet", "thumos14")
    assert [one.id for one in planned.targets] == ["v0", "v3"]
    assert (planned.absent, planned.unnamed) == (("v1", "v2", "v4"), ("v7", "v8"))


def test_layouts_want_their_annotations_first(tmp_path: Path) -> None:
    with pytest.raises(WtalError, match="of thumos14 in the layout basnet, expected them there first: gt"):
        layout_targets({"x": tmp_path / "x.mp4"}, tmp_path, "basnet", "thumos14")
    write_annotations(tmp_path, "basnet", RECORDS, ["Run"])
    with pytest.raises(WtalError, match="has none of the 1 videos"):
        layout_targets({"x": tmp_path / "x.mp4"}, tmp_path, "basnet", "thumos14")
    for layout in ("wtalc", "actionformer"):
        with pytest.raises(WtalError, match="expected them there first: ") as caught:
            layout_targets({"x": tmp_path / "x.mp4"}, tmp_path, layout, "thumos14")
        assert "JOINT" not in str(caught.value)  # that is what we make
        assert "<video>" not in str(caught.value)
