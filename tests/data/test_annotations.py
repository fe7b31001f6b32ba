"""Ground-truth files of every kind: the field's own, and small ones of the same structure."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from wtal.data.annotations import AnnotatedVideo, parse_annotations, read_annotations, split_names
from wtal.data.video import Instance
from wtal.errors import WtalError

DATA = Path(os.environ.get("WTAL_TEST_DATA", "/nowhere"))
needs_data = pytest.mark.skipif(
    "WTAL_TEST_DATA" not in os.environ, reason="WTAL_TEST_DATA does not name a folder of real annotation files"
)


# ---- the field's files ----------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(
    ("file", "kind", "test"),
    [
        ("basnet/gt.json", "basnet", (210, 3311)),
        ("wtalc", "wtalc", (212, 3358)),
        ("wtalc/Thumos14reduced-Annotations", "wtalc", (212, 3358)),
        ("actionformer/thumos14.json", "actionformer", (212, 3358)),
    ],
)
def test_thumos14(file, kind, test):
    annotations = read_annotations(DATA / "thumos14" / file)
    assert annotations.kind == kind
    assert len(annotations.classes) == 20
    assert annotations.classes[:5] == (
        "BaseballPitch",
        "BasketballDunk",
        "Billiards",
        "CleanAndJerk",
        "CliffDiving",
    )
    for name, expected in (("train", (200, 3007)), ("test", test)):
        videos = annotations.split(name)
        assert (len(videos), sum(len(video.instances) for video in videos)) == expected
        assert {annotations.split_of(video) for video in videos} == {name}
        assert all(f"video_{'validation' if name == 'train' else 'test'}_" in video.id for video in videos)


@needs_data
def test_the_three_thumos14_files_agree():
    files = ("basnet/gt.json", "wtalc", "actionformer/thumos14.json")
    basnet, wtalc, actionformer = (read_annotations(DATA / "thumos14" / file) for file in files)
    assert set(wtalc.videos) == set(actionformer.videos)
    assert set(wtalc.videos) - set(basnet.videos) == {"video_test_0000270", "video_test_0001496"}

    def rounded(video):
        return sorted((round(item.start, 3), round(item.end, 3), item.label) for item in video.instances)

    for video in basnet.videos.values():
        assert rounded(video) == rounded(wtalc.videos[video.id]) == rounded(actionformer.videos[video.id])
        assert video.duration is None
        assert wtalc.videos[video.id].duration == pytest.approx(actionformer.videos[video.id].duration, abs=1.0)


@needs_data
@pytest.mark.parametrize("file", ["basnet/gt.json", "wtalc", "actionformer/thumos14.json"])
def test_every_cliff_diving_is_also_diving(file):
    annotations = read_annotations(DATA / "thumos14" / file)
    for split, count in (("train", 143), ("test", 217)):
        dives = [
            (video, item)
            for video in annotations.split(split)
            for item in video.instances
            if item.label == "CliffDiving"
        ]
        assert len(dives) == count
        for video, item in dives:
            assert Instance(item.start, item.end, "Diving") in video.instances
            assert {"CliffDiving", "Diving"} <= set(video.labels)


@needs_data
def test_wtalc_has_its_own_video_labels():
    videos = read_annotations(DATA / "thumos14/wtalc").videos
    other = [v for v in videos.values() if set(v.labels) != {item.label for item in v.instances}]
    assert len(other) == 28
    assert sum("validation" in video.id for video in other) == 8
    assert videos["video_test_0000270"].labels == ()


@needs_data
def test_bsn():
    annotations = read_annotations(DATA / "activitynet/anet_anno_action.json")
    assert (annotations.kind, len(annotations.videos), len(annotations.classes)) == ("bsn", 19228, 200)
    counts = {name: len(annotations.split(name)) for name in ("train", "test", "training", "validation", "testing")}
    assert counts == {"train": 9649, "test": 4728, "training": 9649, "validation": 4728, "testing": 4851}
    assert all(video.instances is None for video in annotations.split("testing"))
    video = annotations.videos["v_QOlSCBRmfWY"]
    assert video.instances == (Instance(6.195294851794072, 77.73085420904837, "Ballet"),)
    assert (video.subset, video.duration, video.fps) == ("training", 82.73, pytest.approx(24.985, abs=1e-3))


# ---- small files of the same structure ------------------------------------------------------------------


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_basnet(tmp_path):
    path = write(
        tmp_path / "gt.json",
        {
            "database": {
                "w": {"subset": "test", "annotations": [{"segment": ["18.6", "24.8"], "label": "High jump"}]},
                "v": {
                    "subset": "train",
                    "annotations": [
                        {"segment": ["3", "4.5"], "label": "b"},
                        {"segment": [1, 1], "label": "a"},
                        {"segment": ["3", "4.5"], "label": "b"},
                    ],
                },
                "empty": {"subset": "train", "annotations": []},
            }
        },
    )
    annotations = read_annotations(str(path))
    assert annotations.path == path
    assert annotations.kind == "basnet"
    assert annotations.classes == ("High jump", "a", "b")
    assert [*annotations.videos] == ["w", "v", "empty"]
    twice = Instance(3.0, 4.5, "b")
    assert annotations.videos["v"] == AnnotatedVideo(
        "v", "train", None, None, (twice, Instance(1.0, 1.0, "a"), twice), ("a", "b")
    )
    assert annotations.videos["empty"].instances == ()


def test_actionformer(tmp_path):
    annotation = {"label": "a", "segment": [0.2, 1.1], "segment(frames)": [6.0, 33.0], "label_id": 5}
    record = {"duration": 33.83, "fps": 30.0, "annotations": [annotation]}
    database = {"t": {"subset": "Test", **record}, "v": {"subset": "Validation", **record}}
    annotations = read_annotations(write(tmp_path / "a.json", {"version": "x", "database": database}))
    assert annotations.kind == "actionformer"
    assert annotations.split("test") == (AnnotatedVideo("t", "Test", 33.83, 30.0, (Instance(0.2, 1.1, "a"),), ("a",)),)
    assert [video.id for video in annotations.split("train")] == ["v"]


def test_official_activitynet(tmp_path):
    annotation = {"label": "Long jump", "segment": [0.2, 1.1]}
    database = {
        "a": {"subset": "training", "duration": 10.5, "url": "", "annotations": [annotation]},
        "b": {"subset": "validation", "duration": 10.5, "url": "", "annotations": [annotation]},
        "c": {"subset": "testing", "duration": 10.5, "url": "", "annotations": []},
    }
    annotations = read_annotations(write(tmp_path / "a.json", {"database": database, "taxonomy": [], "version": "1.3"}))
    assert annotations.kind == "activitynet"
    splits = {name: [video.id for video in annotations.split(name)] for name in ("train", "test", "testing")}
    assert splits == {"train": ["a"], "test": ["b"], "testing": ["c"]}
    assert annotations.videos["c"].instances is None
    assert annotations.videos["a"].duration == 10.5


BSN = {
    "v_a": {
        "duration_second": 10.0,
        "duration_frame": 300,
        "annotations": [{"segment": [1, 2], "label": "x"}],
        "feature_frame": 288,
    },
    "v_b": {"duration_second": 10.0, "duration_frame": 300, "annotations": [], "feature_frame": 288},
}


def test_bsn_with_and_without_its_video_list(tmp_path):
    path = write(tmp_path / "anet_anno_action.json", BSN)
    bare = read_annotations(path)
    assert bare.videos["v_a"] == AnnotatedVideo("v_a", "", 10.0, 30.0, (Instance(1.0, 2.0, "x"),), ("x",))
    assert bare.videos["v_b"].instances is None
    assert bare.split("test") == ()
    table = "video,numFrame,seconds,fps,rfps,subset,featureFrame\nv_a,300,10,30,30,validation,288\n"
    (tmp_path / "video_info_new.csv").write_text(table + "v_c,300,10,30,30,training,288\n")
    listed = read_annotations(path)
    assert [video.id for video in listed.split("test")] == ["v_a"]
    assert listed.videos["v_b"].subset == ""
    assert parse_annotations(BSN, path, {"v_b": "training"}).videos["v_b"].instances == ()
    (tmp_path / "video_info_new.csv").write_text("video,frames\nv_a,3\n")
    with pytest.raises(WtalError, match=r"video_info_new.csv: no column subset, expected BSN's video list"):
        read_annotations(path)


def objects(*entries):
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


WTALC = {
    "videoname": np.array([b"v1", b"v2", b"v3"]),
    "subset": np.array([b"training", b"validation", b"testing"]),
    "classlist": np.array([b"Long jump", b"Archery"]),
    "duration": np.array([[10.0], [20.0], [30.0]]),
    "original_fps": np.array([30.0, 29.97, 25.0]),
    "segments": objects([[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]], []),
    "labels": objects([b"Archery", b"Archery"], [b"Long jump"], []),
    "labels_all": objects([b"Archery", b"Long jump"], [b"Long jump"], []),
}


def write_wtalc(root, prefix="ActivityNet1.2", **changes):
    folder = root / f"{prefix}-Annotations"
    folder.mkdir(parents=True)
    for name, array in (WTALC | changes).items():
        if array is not None:
            np.save(folder / f"{name}.npy", array, allow_pickle=True)
    return folder


def test_wtalc_activitynet(tmp_path):
    folder = write_wtalc(tmp_path)
    annotations = read_annotations(tmp_path)
    assert annotations == read_annotations(folder)
    assert (annotations.kind, annotations.path) == ("wtalc", folder)
    assert annotations.classes == ("Long jump", "Archery")
    assert annotations.videos["v1"] == AnnotatedVideo(
        "v1",
        "training",
        10.0,
        30.0,
        (Instance(1.0, 2.0, "Archery"), Instance(3.0, 4.0, "Archery")),
        ("Archery", "Long jump"),
    )
    assert [video.id for video in annotations.split("test")] == ["v2"]
    assert annotations.videos["v3"].instances is None


def test_wtalc_without_what_is_optional(tmp_path):
    write_wtalc(tmp_path, labels_all=None, duration=None, original_fps=None)
    video = read_annotations(tmp_path).videos["v1"]
    assert (video.labels, video.duration, video.fps) == (("Archery",), None, None)


def test_wtalc_of_one_instance_each(tmp_path):
    """NumPy 2 makes one object array of two dimensions out of lists of equal lengths."""
    write_wtalc(
        tmp_path,
        "Thumos14reduced",
        subset=np.array(["validation", "test", "test"]),
        segments=np.array([[[1.0, 2.0]], [[5.0, 6.0]], [[7.0, 8.0]]], dtype=object),
        labels=np.array([["Archery"], ["Long jump"], ["Archery"]], dtype=object),
        labels_all=None,
    )
    annotations = read_annotations(tmp_path)
    assert [video.instances[0].start for video in annotations.videos.values()] == [1.0, 5.0, 7.0]
    assert [video.id for video in annotations.split("train")] == ["v1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments": objects([[1.0, 2.0]], [], [])}, "video 'v1': 1 segments and 2 labels, expected one label a"),
        ({"segments": objects([[1.0, 2.0], [4.0, 3.0]], [], [])}, r"video 'v1': annotation 1: segment \[4, 3\] ends"),
        ({"segments": objects([[1.0, 2.0], [np.nan, 3.0]], [], [])}, "video 'v1': annotation 1: segment start is nan"),
        ({"labels": objects([b"Archery", b"Yoga"], [b"Archery"], [])}, "video 'v1': class 'Yoga', expected one of 2"),
        ({"labels_all": objects([], [b"Yoga"], [])}, "video 'v2': class 'Yoga', expected one of 2 in classlist.npy"),
        ({"duration": np.zeros((3, 1))}, "video 'v1': duration is 0, expected a number above 0"),
        ({"subset": np.array([b"training"])}, r"subset.npy: shape \[1\], expected \[3\], one entry for each name"),
        ({"duration": np.ones((3, 2))}, r"duration.npy: shape \[3, 2\], expected \[3\]"),
        ({"videoname": np.array([b"v1", b"v2", b"v1"])}, "videoname.npy: a video is named twice"),
        ({"videoname": np.array([1, 2, 3])}, "videoname.npy: entry is .*expected a name"),
        ({"classlist": None}, "classlist.npy: no such file"),
        ({"labels": objects(3, [], [])}, "video 'v1': .*len"),
    ],
)
def test_malformed_wtalc(tmp_path, changes, message):
    write_wtalc(tmp_path, **changes)
    with pytest.raises(WtalError, match=message) as caught:
        read_annotations(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_wtalc(tmp_path):
    with pytest.raises(WtalError, match=r"none found, expected videoname.npy or one folder such as Thumos14reduced-"):
        read_annotations(tmp_path)
    write_wtalc(tmp_path)
    write_wtalc(tmp_path, "Thumos14reduced")
    with pytest.raises(WtalError, match="2 of them found"):
        read_annotations(tmp_path)


def database(**changes):
    record = {"subset": "test", "annotations": [{"segment": [0, 1], "label": "a"}]} | changes
    return {"database": {"v7": {key: value for key, value in record.items() if value is not None}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"unknown structure \[\], expected ground truth as JSON"),
        ({}, "unknown structure {}, expected ground truth as JSON"),
        ({"results": {}}, "unknown structure .*expected ground truth"),
        ({"database": []}, "unknown structure"),
        ({"database": {"v7": 3}}, "video 'v7': expected an object with 'subset', got 3"),
        (database(subset=None), "video 'v7': no 'subset', expected e.g. 'train' or 'test'"),
        (database(subset=3), "video 'v7': subset is 3, expected a name"),
        (database(annotations=None), "video 'v7': no 'annotations', expected a list"),
        (database(annotations={}), "video 'v7': 'annotations' is {}, expected a list"),
        (database(annotations=[3]), "video 'v7': annotation 0: expected an object with 'label', got 3"),
        (database(annotations=[{"segment": [0, 1]}]), "video 'v7': annotation 0: no 'label', expected a class name"),
        (database(annotations=[{"label": "a"}]), r"annotation 0: no 'segment', expected \[start, end\] in seconds"),
        (database(annotations=[{"label": "a", "segment": ["x", "1"]}]), "annotation 0: segment start is 'x', exp"),
        (database(annotations=[{"label": "a", "segment": [0, float("nan")]}]), "segment end is nan, expected a finite"),
        (database(annotations=[{"label": "a", "segment": [3, 1]}]), r"segment \[3, 1\] ends before it starts"),
        (database(annotations=[{"label": "a", "segment": [1, 2, 3]}]), r"segment is \[1, 2, 3\], expected \[start"),
        (database(duration=-1), "video 'v7': duration is -1, expected a number above 0"),
        (database(fps="fast"), "video 'v7': fps is 'fast', expected a finite number"),
        ({"v_a": {"annotations": []}}, "video 'v_a': no 'duration_second', expected seconds"),
    ],
)
def test_malformed_json(tmp_path, content, message):
    path = write(tmp_path / "gt.json", content)
    with pytest.raises(WtalError, match=message) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_truncated_and_missing_json(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(database())[:-5])
    with pytest.raises(WtalError, match=r"gt.json: damaged or truncated JSON \(.*line 1, column .*expected ground"):
        read_annotations(path)
    with pytest.raises(WtalError, match=r"other.json: no such file, expected ground truth as JSON"):
        read_annotations(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("subsets", "ids", "expected"),
    [
        (["Validation", "Test"], (), ["train", "test"]),  # THUMOS14
        (["training", "validation", "testing"], (), ["train", "test", "testing"]),  # ActivityNet
        (["training", "validation"], (), ["train", "test"]),
        (["training", "validation"], ("video_validation_0000051",), ["train", "test"]),  # OpenTAD's THUMOS14
        (["train", "test"], (), ["train", "test"]),
        (["training", "testing"], (), ["train", "test"]),
        (["train", "validation", "test"], (), ["train", "validation", "test"]),
        (["validation"], (), ["test"]),
        (["validation"], ("video_validation_0000051",), ["train"]),
        (["fold-1", ""], (), ["fold-1", ""]),
    ],
)
def test_split_names(subsets, ids, expected):
    assert [*split_names(subsets, ids).values()] == expected
