"""Real files of the field that no other test reads: ActivityNet-1.2, I3D of THUMOS14, CLIP at three rates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import wtal
from wtal.data.annotations import read_annotations
from wtal.data.clip_alignment import read_aligned_clip
from wtal.data.dataset_toml import open_own
from wtal.data.features import read_features
from wtal.data.timebase import Timebase
from wtal.data.video import Video

CLIP = "videos/v_GGSY1Qvo990_clip_vitb32_{}fps.npy"
I3D = "videos/v_GGSY1Qvo990_i3d_{}_24_24_25fps.npy"


def fed_back(videos):
    return {
        video.id: [wtal.Detection(item.start, item.end, item.label, 1.0) for item in video.instances]
        for video in videos
    }


def test_activitynet12_loads_and_evaluates(test_data: Path, tmp_path: Path) -> None:
    path = test_data / "activitynet12/activity_net.v1-2.min.json"
    truth = read_annotations(path)
    assert (truth.kind, len(truth.videos), len(truth.classes)) == ("activitynet", 9682, 100)
    parts = {name: truth.split(name) for name in ("train", "test", "testing")}
    assert {name: len(videos) for name, videos in parts.items()} == {"train": 4819, "test": 2383, "testing": 2480}
    assert all(video.instances is None for video in parts["testing"])
    assert all(video.labels for video in parts["train"])
    assert {video.subset for video in parts["test"]} == {"validation"}
    result = wtal.evaluate(fed_back(parts["test"]), path, tiou=np.linspace(0.5, 0.95, 10))
    content = json.loads(path.read_text())["database"]
    listed = [item for record in content.values() if record["subset"] == "validation" for item in record["annotations"]]
    assert (result.subset, result.videos, result.instances) == ("validation", 2383, len(listed))
    assert result.mean == 100.0
    half = {video: found for video, found in fed_back(parts["test"]).items() if hash(video) % 2}
    assert 20 < wtal.evaluate(half, path, tiou=0.5).mean < 80


def test_i3d_of_thumos14_opens_as_own_data(test_data: Path, tmp_path: Path) -> None:
    """Windows of 64 frames every 4 at 30 fps, RGB and flow apart, beside THUMOS14's own annotation."""
    folder = test_data / "thumos14/i3d_samples"
    ids = sorted(path.stem for path in (folder / "rgb").glob("*.npy"))
    assert ids == ["video_test_0001135", "video_validation_0000851", "video_validation_0000950"]
    known = read_annotations(test_data / "thumos14/wtalc").videos
    classes = sorted({label for video in ids for label in known[video].labels})
    rows = [f"{video},{label}" for video in ids for label in known[video].labels]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label", *rows]) + "\n")
    (tmp_path / "dataset.toml").write_text(
        f'name = "samples"\nclasses = {json.dumps(classes)}\ni3d = ["{folder}/rgb", "{folder}/flow"]\n'
        f'labels = "labels.csv"\nfps = 30\nstride = 4\nwindow = 64\ntest = ["{ids[0]}"]\n'
    )
    data = open_own(tmp_path / "dataset.toml")
    assert [video.subset for video in data] == ["test", "train", "train"]
    for video in data:
        found = read_features(video)
        parts = [np.load(folder / kind / f"{video.id}.npy") for kind in ("rgb", "flow")]
        assert found.shape == (min(map(len, parts)), 2048)
        np.testing.assert_array_equal(found[:, :1024], parts[0][: len(found)])
        np.testing.assert_array_equal(found[:, 1024:], parts[1][: len(found)])
        last = float(video.timebase.center(np.array([len(found) - 1.0]))[0])
        assert last + 32 / 30 <= known[video.id].duration + 0.5  # the grid is that of the video


def real_video(test_data: Path, rate: float, clip_fps: float | None) -> Video:
    name = f"{rate:g}"
    i3d = tuple(test_data / I3D.format(kind) for kind in ("rgb", "flow"))
    clip = test_data / CLIP.format(name)
    return Video("v_GGSY1Qvo990", "test", (), Timebase(25, 24, 24), i3d, clip, clip_fps=clip_fps)


@pytest.mark.parametrize("rate", [19.62, 5.0])
def test_clip_rows_are_taken_by_time(rate: float, test_data: Path) -> None:
    """I3D has a row every 24 frames at 25 fps, CLIP one at 19.62 or at 5 frames a second of the same video."""
    video = real_video(test_data, rate, rate)
    snippets = len(read_features(video))
    assert snippets == 18
    rows = np.load(video.clip).astype(np.float64)
    found = read_aligned_clip(video, snippets)
    assert found.shape == (18, 512)
    for index in range(snippets):
        place = (index + 0.5) * 24 / 25 * rate  # seconds of the snippet's middle, times rows a second
        below = min(int(place), len(rows) - 1)
        above = min(below + 1, len(rows) - 1)
        expected = rows[below] + (place - below) * (rows[above] - rows[below])
        np.testing.assert_allclose(found[index], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(read_aligned_clip(video, snippets, 5, 9), found[5:9])


def test_the_two_rates_show_the_same_moments(test_data: Path) -> None:
    """What is seen at a snippet is nearly the same at both rates; with the rate mistaken it is another moment."""

    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    dense = read_aligned_clip(real_video(test_data, 19.62, 19.62), 18)
    sparse = read_aligned_clip(real_video(test_data, 5.0, 5.0), 18)
    evenly = read_aligned_clip(real_video(test_data, 5.0, None), 18)
    wrong = read_aligned_clip(real_video(test_data, 5.0, 10.0), 18)
    right = cosine(dense, sparse)
    assert right.mean() > cosine(dense, wrong).mean() + 0.02
    assert cosine(dense, evenly).mean() > cosine(dense, wrong).mean()
    shifts = [cosine(dense[3:-3], np.roll(sparse, shift, axis=0)[3:-3]).mean() for shift in range(-3, 4)]
    assert int(np.argmax(shifts)) == 3, shifts
