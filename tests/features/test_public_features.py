"""wtal-extract's rows and time stamps beside those of real features that a public extractor (video_features) made.

No weights are needed: the real CLIP rows of every source frame tell which source frame each row at another rate shows.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from wtal.data.timebase import Timebase
from wtal.features.decode import VideoReader
from wtal.features.snippet_centres import Grid
from wtal.features.snippets import Cut, cut
from wtal.features.timeline import Facts, Timeline

NAME = "v_GGSY1Qvo990"
THUMOS = ("video_test_0001135", "video_validation_0000851", "video_validation_0000950")


def real(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"WTAL_TEST_DATA has no {path.parent.name}/{path.name}")
    return path


def features(folder: Path, kind: str) -> np.ndarray:
    return np.load(real(folder / "videos" / f"{NAME}_{kind}.npy")).astype(np.float32)


def shown(folder: Path, fps: int) -> tuple[list[int], Facts]:
    """The number of the source frame that each frame at ``fps`` shows."""
    with av.open(str(real(folder / "videos" / f"{NAME}.mp4"))) as container:
        stream = container.streams.video[0]
        timeline: Timeline = Timeline(container, stream, Fraction(fps))
        number, out = {}, []
        for frame in container.decode(stream):
            number[frame.pts] = len(number)
            out += [number[kept.pts] for kept in timeline.push(frame)]
        out += [number[kept.pts] for kept in timeline.finish(allow_truncated=True)]
    return out, timeline.facts


def similarity(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    rows, others = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (rows, others))
    return rows @ others.T


def test_every_frame_has_a_row(test_data: Path) -> None:
    clip = features(test_data, "clip_vitb32_19.62fps")
    _, facts = shown(test_data, 25)
    assert facts.source_frames == len(clip)
    assert facts.fps == 19.62


def test_rows_at_25_frames_a_second(test_data: Path) -> None:
    """24 frames a window: the extractor needs one frame more, for the flow of the last one; here no row hangs on it."""
    i3d = [features(test_data, f"i3d_{stream}_24_24_25fps") for stream in ("rgb", "flow")]
    count = sum(1 for _ in VideoReader(test_data / "videos" / f"{NAME}.mp4", Fraction(25), 256).pictures())
    assert Grid(24, 24).count(count) == 1 + (count - 1 - 24) // 24 == len(i3d[0]) == len(i3d[1])


def test_frames_at_another_rate_are_ffmpegs(test_data: Path) -> None:
    """Each row at 5 frames a second is most like the row of the source frame that our rule shows at that time.

    The extractor encoded the frames anew, and neighbours look alike, so that a few rows are more like another frame.
    """
    sources, _ = shown(test_data, 5)
    alike = similarity(features(test_data, "clip_vitb32_5fps"), features(test_data, "clip_vitb32_19.62fps"))
    assert len(sources) == len(alike)
    assert np.mean(alike.argmax(1) == sources) >= 0.85  # 83 of 90
    middle = range(1, len(sources) - 1)
    by_shift = {shift: np.mean([alike[k, sources[k] + shift] for k in middle]) for shift in (-2, -1, 0, 1, 2)}
    assert max(by_shift, key=by_shift.__getitem__) == 0


def test_clip_fps_takes_frames_of_25_a_second(test_data: Path) -> None:
    """They are up to a tenth of a second earlier than frames that were brought to 5 a second at once, never later."""
    at_25, _ = shown(test_data, 25)
    what = Cut(16, 16, 1, rgb=False, flow=None, clip=True, clip_step=Fraction(25, 5))
    frames = (np.zeros((1, 1, 3), np.uint8) for _ in at_25)
    rows = sum(piece.stream == "clip" for piece in cut(frames, what))
    at_once, _ = shown(test_data, 5)
    assert rows == len(at_once) + 1 == len(features(test_data, "clip_vitb32_5fps")) + 1
    late = [there - at_25[5 * k] for k, there in enumerate(at_once)]
    assert min(late) >= 0
    assert max(late) <= 2  # 0.1 s are 1.96 source frames
    assert np.mean(late) > 1


@pytest.mark.parametrize("name", THUMOS)
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_windows_at_the_end_of_thumos14_videos(name: str, stream: str, test_data: Path) -> None:
    """Windows of 64 every 4 frames at 30 a second; the videos are not there, so their length is the annotation's."""
    count = len(np.load(real(test_data / "thumos14" / "i3d_samples" / stream / f"{name}.npy"), mmap_mode="r"))
    annotations = json.loads(real(test_data / "thumos14" / "actionformer" / "thumos14.json").read_text())
    seconds = annotations["database"][name]["duration"]
    assert Grid(4, 64).count(round(30 * seconds)) - count in (0, 1)
    last = Timebase(30, 4, 64).center(count - 1) + 32 / 30
    assert 0 <= seconds - last < 8 / 30  # two rows more would not fit
