"""Text files as editors and spreadsheets leave them: a byte-order mark, spaces in CSV; the same in every reader."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from wtal.data.annotations import read_annotations
from wtal.data.catalog import open_dataset
from wtal.data.dataset_toml import open_own
from wtal.data.ground_truth import read_ground_truth
from wtal.data.predictions import Detection, read_predictions, write_predictions
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.features.video_list import find_videos
from wtal.platform.text import csv_rows, read_lines, read_text
from wtal.settings.recipe import load_recipe

BOM = b"\xef\xbb\xbf"


def mark(path: Path) -> Path:
    """Put a byte-order mark in front of a file."""
    path.write_bytes(BOM + path.read_bytes())
    return path


def spaced(text: str) -> str:
    """Spaces around every value of a CSV."""
    return "".join("\t, ".join(f" {value} " for value in line.split(",")) + "\r\n" for line in text.splitlines())


def same(ours, theirs) -> None:
    assert (ours.classes, ours.videos) == (theirs.classes, theirs.videos)


@pytest.mark.parametrize("layout", ["basnet", "actionformer"])
def test_layouts(layout: str, content: Mapping, write_layout: Callable[..., Path]) -> None:
    root = write_layout(layout, content)
    if layout == "basnet":
        for subset in ("train", "test"):
            ids = [video for video, (kind, _, _) in content.items() if kind == subset]
            (root / f"split_{subset}.txt").write_text("\r\n".join(ids))
    plain = open_dataset("thumos14", root)
    marked = [mark(path) for path in root.rglob("*") if path.suffix in (".json", ".txt")]
    assert len(marked) == (3 if layout == "basnet" else 1)
    same(open_dataset("thumos14", root), plain)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_own_data(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "i3d").mkdir()
    for video in ("a", "b", "c"):
        np.save(tmp_path / "i3d" / f"{video}.npy", np.ones((40, 4), np.float32))
    labels = "video,label\na,Hop;Run\nb,Run\nc,Hop\n"
    segments = "video,start,end,label\na,1,2.5,Hop\nb,0,1,Run\na,3,4,Run\nc,1,2,Hop\n"
    if suffix == ".json":
        labels = json.dumps({"a": ["Hop", "Run"], "b": ["Run"], "c": ["Hop"]})
        rows = [("a", 1, 2.5, "Hop"), ("b", 0, 1, "Run"), ("a", 3, 4, "Run"), ("c", 1, 2, "Hop")]
        segments = json.dumps(
            {video: [{"segment": [s, e], "label": name} for v, s, e, name in rows if v == video] for video in "abc"}
        )
    (tmp_path / f"labels{suffix}").write_text(labels)
    (tmp_path / f"segments{suffix}").write_text(segments)
    (tmp_path / "test.txt").write_text("c\n")
    toml = tmp_path / "dataset.toml"
    toml.write_text(
        f'name = "mine"\nclasses = ["Hop", "Run"]\ni3d = "i3d"\nlabels = "labels{suffix}"\nfps = 25\n'
        f'segments = "segments{suffix}"\ntest = "test.txt"\n'
    )
    plain, truth = open_own(toml), read_ground_truth(tmp_path / f"segments{suffix}")
    assert plain.videos[0].instances == (Instance(1, 2.5, "Hop"), Instance(3, 4, "Run"))
    if suffix == ".csv":
        (tmp_path / "labels.csv").write_text(spaced(labels), newline="")
        (tmp_path / "segments.csv").write_text(spaced(segments), newline="")
    for name in ("dataset.toml", "test.txt", f"labels{suffix}", f"segments{suffix}"):
        mark(tmp_path / name)
    same(open_own(toml), plain)
    same(read_ground_truth(tmp_path / f"segments{suffix}"), truth)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_predictions(tmp_path: Path, suffix: str) -> None:
    found = {"a": [Detection(0.5, 1.25, "Hop", 0.5), Detection(2, 3, "Run", 0.25)], "b": [Detection(0, 1, "Run", 1)]}
    path = tmp_path / f"p{suffix}"
    write_predictions(path, found)
    if suffix == ".csv":
        path.write_text(spaced(path.read_text()), newline="")
    assert read_predictions(mark(path)) == found


def test_the_video_list_of_bsn(tmp_path: Path) -> None:
    record = {"duration_second": 9.0, "annotations": [{"segment": [0, 1], "label": "Hop"}]}
    (tmp_path / "anet_anno_action.json").write_text(json.dumps({"v_a": record, "v_b": record}))
    (tmp_path / "video_info_new.csv").write_text(spaced("numFrame,video,subset\n9,v_a,training\n9,v_b,validation\n"))
    for name in ("anet_anno_action.json", "video_info_new.csv"):
        mark(tmp_path / name)
    found = read_annotations(tmp_path / "anet_anno_action.json")
    assert [video.id for video in found.split("train")] == ["v_a"]
    assert [video.id for video in found.split("test")] == ["v_b"]


def test_recipes_and_lists_of_videos(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('extends = "own"\n[batch]\nsize = 3\n')
    assert load_recipe(mark(tmp_path / "r.toml")).config.batch.size == 3
    (tmp_path / "videos.txt").write_text("a.mp4\n  b.mp4 \n# c.mp4\n")
    assert list(find_videos([mark(tmp_path / "videos.txt")]).videos) == ["a", "b"]


def test_what_is_no_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("Grün", encoding="utf-16")
    with pytest.raises(WtalError, match=r"x\.txt: cannot be read \(not UTF-8 text\), expected a text file"):
        read_text(tmp_path / "x.txt")
    shutil.rmtree(tmp_path / "nowhere", ignore_errors=True)
    with pytest.raises(WtalError, match="nowhere: no such file, expected one id a line"):
        read_lines(tmp_path / "nowhere", "one id a line")


@pytest.mark.parametrize(
    ("text", "only", "told"),
    [
        ("a,c\n1,2\n", False, "no column b, expected CSV"),
        ("b,a\n1,2\n", True, "first line 'b,a', expected 'CSV'"),
        ("a,b\n1\n", True, r"line 2: \['1'\], expected CSV"),
        ('a,b\n"1,2\n', False, r"line 2: cannot be read"),
    ],
)
def test_faults_of_a_csv(tmp_path: Path, text: str, only: bool, told: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(WtalError, match=rf"x\.csv: {told}"):
        list(csv_rows(tmp_path / "x.csv", ("a", "b"), "CSV", only))


def test_rows_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('c, b ,a\n\n ," 2 ",1\n , , \n3\n')
    assert list(csv_rows(tmp_path / "x.csv", ("a", "b"), "CSV")) == [(3, ["1", "2"]), (5, ["", ""])]
