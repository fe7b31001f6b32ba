"""The three layouts on disk: the same data set comes out of each, and what is missing is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wtal.data.annotations import read_annotations
from wtal.data.catalog import find_annotations, open_dataset, open_folder
from wtal.data.features import read_clip, read_features
from wtal.data.timebase import Timebase
from wtal.data.video import Instance, VideoSet
from wtal.errors import WtalError

LAYOUTS = ["wtalc", "basnet", "actionformer"]


def message(function, *arguments, **options) -> str:
    with pytest.raises(WtalError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def check(opened: VideoSet, content, layout: str, name: str, fps: float) -> None:
    assert (opened.name, opened.layout, opened.missing) == (name, layout, ())
    assert opened.classes == ("Billiards", "CliffDiving", "Diving")
    assert [video.id for video in opened] == list(content)
    for video in opened:
        subset, features, rows = content[video.id]
        assert video.subset == subset
        assert video.labels == tuple(sorted({row[2] for row in rows}))
        assert video.instances == tuple(Instance(*row) for row in rows)
        assert (read_features(video) == features).all()
        assert video.clip is None
        assert video.timebase == (Timebase(fps, 4, 16) if fps != 25 else Timebase(25, 16, 16))
    assert opened.multi_hot(opened.videos[0]).tolist() == [0, 1, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_thumos14(layout: str, content, write_layout: Callable[..., Path]) -> None:
    root = write_layout(layout, content)
    check(open_dataset("thumos14", root), content, layout, "thumos14", 29.97 if layout == "actionformer" else 25)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("v_prefix", [False, True])
def test_activitynet12(layout: str, v_prefix: bool, content, write_layout: Callable[..., Path]) -> None:
    content = {f"v_{index}abc": value for index, value in enumerate(content.values())}
    root = write_layout(layout, content, thumos=False)
    if v_prefix:
        for path in list(root.rglob("v_*.npy")):
            path.rename(path.with_name(path.name[2:]))
    check(open_dataset("activitynet12", root), content, layout, "activitynet12", 25)


def test_activitynet_withholds_its_testing_videos(content, write_layout: Callable[..., Path]) -> None:
    content = {f"v_{index}abc": value for index, value in enumerate(content.values())}
    root = write_layout("basnet", content, thumos=False)
    truth = json.loads((root / "gt.json").read_text())
    truth["database"]["hidden"] = {"subset": "testing", "annotations": []}
    (root / "gt.json").rename(root / "activity_net.v1-3.min.json")
    (root / "activity_net.v1-3.min.json").write_text(json.dumps(truth))
    assert [video.id for video in open_dataset("activitynet13", root)] == list(content)


@pytest.mark.parametrize("joint", ["features/{}", "{}"])
def test_basnet_with_joint_files(joint: str, content, write_layout: Callable[..., Path]) -> None:
    root = write_layout("basnet", content)
    shutil.rmtree(root / "features")
    for video, (subset, features, _) in content.items():
        path = root / joint.format(subset) / f"{video}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, features)
    check(open_dataset("thumos14", root), content, "basnet", "thumos14", 25)


def test_basnet_splits_choose_the_videos(content, write_layout: Callable[..., Path]) -> None:
    root = write_layout("basnet", content)
    (root / "split_test.txt").write_text("video_test_0000002\r\n")
    assert [video.id for video in open_dataset("thumos14", root).subset("test")] == ["video_test_0000002"]
    assert len(open_dataset("thumos14", root).subset("train")) == 2
    (root / "split_train.txt").write_text("video_test_0000001\n")
    assert "split_train.txt: video_test_0000001 is test in gt.json" in message(open_dataset, "thumos14", root)
    (root / "split_train.txt").write_text("video_validation_0000009\n")
    assert "video_validation_0000009 is not in gt.json" in message(open_dataset, "thumos14", root)


def test_actionformer_needs_the_rate_of_each_video(content, write_layout: Callable[..., Path]) -> None:
    root = write_layout("actionformer", content)
    path = root / "annotations" / "thumos14.json"
    path.write_text(path.read_text().replace('"fps": 29.97, ', "", 1))
    assert "video video_validation_0000001: no 'fps'" in message(open_dataset, "thumos14", root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clip_is_optional_for_each_video(layout: str, content, write_layout: Callable[..., Path]) -> None:
    root = write_layout(layout, content)
    (root / "clip").mkdir()
    np.save(root / "clip" / "video_test_0000001.npy", np.ones((4, 2), np.float16))
    opened = open_dataset("thumos14", root)
    assert [video.clip is not None for video in opened] == [False, True, False, False]
    assert read_clip(opened.videos[1]).tolist() == [[1, 1]] * 4


@pytest.mark.parametrize("layout", ["basnet", "actionformer"])
def test_missing_features(layout: str, content, write_layout: Callable[..., Path]) -> None:
    root = write_layout(layout, content)
    for video in ("video_validation_0000002", "video_test_0000001"):
        next(root.rglob(f"{video}.npy")).unlink()
    text = message(open_dataset, "thumos14", root)
    assert "no features for 2 of 4 videos (video_test_0000001, video_validation_0000002)" in text
    assert "video_test_0000001.npy; --allow-missing leaves them out" in text
    assert "\n" not in text
    opened = open_dataset("thumos14", root, allow_missing=True)
    assert opened.missing == ("video_test_0000001", "video_validation_0000002")
    assert [video.id for video in opened] == ["video_validation_0000001", "video_test_0000002"]
    assert opened.classes == ("Billiards", "CliffDiving", "Diving")
    for path in root.rglob("video_*.npy"):
        path.unlink()
    assert "no features for 4 of 4 videos" in message(open_dataset, "thumos14", root, allow_missing=True)


def test_a_training_video_needs_a_label_and_a_test_video_does_not(content, write_layout: Callable[..., Path]) -> None:
    content["video_validation_0000002"] = (*content["video_validation_0000002"][:2], [])
    content["video_test_0000002"] = (*content["video_test_0000002"][:2], [])
    root = write_layout("basnet", content)
    assert "1 training videos have no label (video_validation_0000002)" in message(open_dataset, "thumos14", root)
    opened = open_dataset("thumos14", root, allow_missing=True)
    assert (opened.missing, opened.unlabelled) == ((), ("video_validation_0000002",))
    assert opened.videos[-1].labels == ()


@pytest.mark.parametrize("bad", ["../x", "a/b", "a\\b", ".."])
@pytest.mark.parametrize("layout", ["basnet", "actionformer"])
def test_ids_that_name_other_files_are_refused(
    layout: str, bad: str, content, write_layout: Callable[..., Path]
) -> None:
    root = write_layout(layout, content)
    path = next(root.rglob("*.json"))
    path.write_text(path.read_text().replace('"video_test_0000001"', json.dumps(bad)))
    assert f"video {bad!r}: an id is part of file names" in message(open_dataset, "thumos14", root)


def test_wtalc_rows_must_be_as_many_as_names(content, write_layout: Callable[..., Path]) -> None:
    root = write_layout("wtalc", content)
    array = np.empty(3, dtype=object)
    array[:] = [features for _, features, _ in list(content.values())[:3]]
    np.save(root / "Thumos14reduced-I3D-JOINTFeatures.npy", array, allow_pickle=True)
    assert "features of 3 videos, expected 4" in message(open_dataset, "thumos14", root)


def test_text_features_come_in_class_order_and_unit_norm(content, write_layout: Callable[..., Path]) -> None:
    root = write_layout("basnet", content)
    np.save(root / "text_features.npy", np.array([[3, 4], [0, 2], [1, 0]], np.float64))
    opened = open_folder(root, name="mine")
    assert opened.name == "mine"
    assert opened.text_features.dtype == np.float32
    np.testing.assert_allclose(opened.text_features, [[0.6, 0.8], [0, 1], [1, 0]], rtol=1e-6)
    assert open_folder(root, classes=["Billiards", "Diving"]).classes == opened.classes
    text = message(open_folder, root, classes=["Archery"])
    assert "text_features.npy: float64 of shape [3, 2], expected floating point [4, D]" in text
    np.save(root / "text_features.npy", np.zeros((3, 2)))
    assert "a row is zero or not finite" in message(open_folder, root)


def test_two_layouts_in_one_folder_are_not_told_apart_by_chance(content, write_layout: Callable[..., Path]) -> None:
    root, other = write_layout("basnet", content), write_layout("actionformer", content)
    shutil.copytree(other, root, dirs_exist_ok=True)
    assert "files of the layouts basnet and actionformer" in message(open_dataset, "thumos14", root)
    shutil.rmtree(root / "i3d_features")
    assert open_dataset("thumos14", root).layout == "basnet"


REAL = {"wtalc": "thumos14/wtalc", "basnet": "thumos14/basnet", "actionformer": "thumos14/actionformer"}


def test_real_annotations_give_the_same_classes_and_training_videos(test_data: Path, tmp_path: Path) -> None:
    """Real annotations, features of one row made here."""
    opened = {}
    for layout, folder in REAL.items():
        root = tmp_path / layout
        root.mkdir()
        source = test_data / folder
        if layout == "actionformer":
            (root / "annotations").symlink_to(source)
        else:
            for path in source.iterdir():
                (root / path.name).symlink_to(path)
        annotations = read_annotations(find_annotations("thumos14", root).truth)
        row = np.ones((1, 4), np.float32)
        if layout == "wtalc":
            array = np.empty(len(annotations.videos), dtype=object)
            array[:] = [row * index for index in range(len(array))]
            np.save(root / "Thumos14reduced-I3D-JOINTFeatures.npy", array, allow_pickle=True)
        for video in annotations.videos.values() if layout != "wtalc" else ():
            subset = annotations.split_of(video)
            folders = (
                ["i3d_features"] if layout == "actionformer" else [f"features/{subset}/{s}" for s in ("rgb", "flow")]
            )
            for folder in folders:
                (root / folder).mkdir(parents=True, exist_ok=True)
                np.save(root / folder / f"{video.id}.npy", row)
        opened[layout] = open_dataset("thumos14", root)
    for layout, data in opened.items():
        assert data.classes == opened["basnet"].classes
        assert len(data.classes) == 20
        assert len(data.subset("train")) == 200
        assert len(data.subset("test")) == (210 if layout == "basnet" else 212)
        assert {video.id for video in data.subset("train")} == {video.id for video in opened["basnet"].subset("train")}
        assert sum(len(video.instances) for video in data.subset("train")) == 3007
    assert {video.timebase.fps for video in opened["actionformer"]} == {24.0, 25.0, 29.97, 30.0}
    # W-TALC's rows follow videoname.npy.
    names = np.load(test_data / REAL["wtalc"] / "Thumos14reduced-Annotations" / "videoname.npy").astype(str).tolist()
    for video in opened["wtalc"].videos[::50]:
        assert (read_features(video) == names.index(video.id)).all()
