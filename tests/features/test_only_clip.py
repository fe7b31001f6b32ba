"""CLIP alone: the frames that a sparse reader gives, the grid that they fit, and the folders it is put into."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drills import tree
from hypothesis import given
from hypothesis import strategies as st
from videos import damaged, encode, lossless, number, numbered

from wtal.data.catalog import open_folder
from wtal.data.clip_alignment import read_aligned_clip
from wtal.data.features import feature_lengths
from wtal.data.synthetic.write_layouts import Record, write_annotations
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.features.decode import VideoReader
from wtal.features.extract import Summary
from wtal.features.snippet_centres import Grid, centre_pieces
from wtal.features.sparse_reader import SparseReader

Extract = Callable[..., Summary]
CLIP_ALONE = {"modality": "none", "i3d_rgb": None, "i3d_flow": None, "workers": None}

FORMS: dict[str, dict[str, Any]] = {
    "h264 with b-frames": {"options": {"g": "8", "bf": "3", "x264-params": "scenecut=0"}},
    "h264, open groups": {"options": {"g": "8", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    "h264, one group": {"options": {"g": "999", "x264-params": "scenecut=0"}},
    "h264, key frames alone": {"options": {"g": "1"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=9:open-gop=1:bframes=3:log-level=none"}},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "7", "bf": "2"}},
    "variable rate": {"options": {"g": "6"}, "stamps": [n / 25 + (n // 9) * 0.1 for n in range(70)]},
    "20 frames a second": {"rate": Fraction(981, 50), "options": {"g": "6"}},
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("forms")
    made = {
        name: encode(folder / f"{index}.mp4", numbered(70, 64, 96), **form)
        for index, (name, form) in enumerate(FORMS.items())
    }
    made["ffv1"] = lossless(folder / "l.mkv", numbered(70, 64, 96))
    made["vp9"] = encode(folder / "v.webm", numbered(70, 64, 96), codec="libvpx-vp9", options={"g": "8"})
    made["transport stream"] = encode(folder / "t.ts", numbered(70, 64, 96), options={"g": "8", "bf": "2"})
    made["avi"] = encode(folder / "a.avi", numbered(70, 64, 96), codec="mpeg4", options={"g": "7", "bf": "2"})
    made["damaged"] = damaged(folder / "d.mp4", numbered(70, 64, 96), 30)
    return made


def few(reader: SparseReader, wanted: list[int]) -> list[np.ndarray]:
    return [picture() for n, picture in enumerate(reader.pictures()) if n in wanted]


@pytest.mark.parametrize("form", [*FORMS, "ffv1", "vp9", "transport stream", "avi", "damaged"])
def test_frames_and_facts_are_those_of_the_whole_video(forms: dict[str, Path], form: str) -> None:
    path, random = forms[form], np.random.default_rng()
    for fps in (Fraction(25), Fraction(30000, 1001)):
        whole = VideoReader(path, fps, 64)
        frames = list(whole)
        for count in (1, 3, 20):
            wanted = sorted(random.choice(len(frames), count, replace=False).tolist())
            asked = []
            reader = SparseReader(path, fps, 64, lambda n, asked=asked, wanted=wanted: asked.append(n) or wanted)
            found = few(reader, wanted)
            assert all(np.array_equal(a, frames[n]) for a, n in zip(found, wanted, strict=True)), (wanted, fps)
            assert len(found) == count
            if form != "damaged" or reader.decoded > len(frames):  # damage to what nobody wants stays unknown
                assert reader.facts == whole.facts
            assert set(asked) <= {len(frames)}


def test_groups_that_hold_no_wanted_frame_are_not_decoded(forms: dict[str, Path]) -> None:
    def decoded(form: str, wanted: list[int]) -> int:
        reader = SparseReader(forms[form], Fraction(25), 64, lambda _: wanted)
        assert [number(image) for image in few(reader, wanted)] == wanted
        return reader.decoded

    assert decoded("h264, key frames alone", [8, 24, 40, 69]) == 4
    assert decoded("ffv1", [8, 24, 40]) == 9 + 1 + 5  # a key frame every 12
    assert decoded("h264 with b-frames", [8, 40]) <= 4  # the first of their groups, with what they are made of
    assert decoded("h264 with b-frames", [15]) <= 8
    assert decoded("h264, one group", [8]) < 20
    assert decoded("h264, one group", [69]) > 60
    assert decoded("damaged", [8]) == 1
    reader = SparseReader(forms["damaged"], Fraction(25), 64, lambda _: [14, 15])
    assert [number(image) for image in few(reader, [14, 15])] == [14, 14]  # 15 is lost: all of it, from the start
    assert reader.decoded > 60


def test_a_file_that_cannot_be_used_is_told_as_by_the_other_reader(tmp_path: Path, clips: Path) -> None:
    data = (clips / "carphone_pristine.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for name in ("cut.mp4", "broken.mp4"):
        told = []
        for reader in (
            VideoReader(tmp_path / name, Fraction(25), 32),
            SparseReader(tmp_path / name, Fraction(25), 32, lambda n: range(n)),
        ):
            with pytest.raises(WtalError) as caught:
                list(reader.pictures())
            told.append(str(caught.value))
        assert told[0] == told[1]


@given(st.integers(1, 90), st.integers(1, 20), st.integers(1, 20), st.none() | st.integers(1, 30))
def test_rows_are_the_centres_of_snippets(frames: int, stride: int, window: int, rows: int | None) -> None:
    grid = Grid(stride, window, rows)
    wanted = set(grid.wanted(frames))
    assert wanted <= set(range(frames))

    def picture(n: int) -> np.ndarray:
        assert n in wanted
        return np.full((4, 6, 3), n, np.uint8)

    pieces = list(centre_pieces((lambda n=n: picture(n) for n in range(frames)), grid, 4))
    complete = [r for r in range(frames) if r * stride + window <= frames] or [0]
    expected = range(len(complete) if rows is None else rows)
    assert [piece.row for piece in pieces] == list(expected)
    for piece in pieces:
        assert piece.stream == "clip"
        assert piece.data.shape == (4, 4, 3)
        assert piece.data[0, 0, 0] == min(piece.row * stride + window // 2, frames - 1)


def folder(root: Path, layout: str, rows: dict[str, int]) -> None:
    """Annotations and I3D features of two videos as another project left them."""
    root.mkdir()
    records = [Record(n, "train" if n == "a" else "test", 3.0, (Instance(0.1, 0.6, "Run"),)) for n in rows]
    write_annotations(root, layout, records, ["Run"])
    arrays = {n: np.random.default_rng(count).standard_normal((count, 2048), np.float32) for n, count in rows.items()}
    if layout == "wtalc":
        joint = np.empty(len(rows), object)
        for index, array in enumerate(arrays.values()):
            joint[index] = array
        np.save(root / "Thumos14reduced-I3D-JOINTFeatures.npy", joint, allow_pickle=True)
        return
    for name, array in arrays.items():
        subset = "train" if name == "a" else "test"
        if layout == "actionformer":
            places = {root / "i3d_features" / f"{name}.npy": array}
        else:
            base = root / "features" / subset
            places = {base / "rgb" / f"{name}.npy": array[:, :1024], base / "flow" / f"{name}.npy": array[:, 1024:]}
        for path, part in places.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, part)


@pytest.mark.parametrize("layout", ["wtalc", "basnet", "actionformer"])
def test_clip_fits_features_that_are_there(go: Extract, tmp_path: Path, layout: str) -> None:
    root = tmp_path / "set"
    stride = 4 if layout == "actionformer" else 16
    videos = [encode(tmp_path / f"{n}.mp4", numbered(75, 64, 96), 25, options={"g": "12"}) for n in "ab"]
    rows = {"a": 1 + (75 - 16) // stride, "b": (75 - 16) // stride}
    folder(root, layout, rows)
    before = tree(root)
    options = {**CLIP_ALONE, "layout": layout}
    assert go(videos, root, **options).extracted == 2
    after = tree(root)
    assert {name: data for name, data in after.items() if name in before} == before
    assert set(after) - set(before) == {
        *("manifest.json", "manifest/a.json", "manifest/b.json", "clip/a.npy", "clip/b.npy")
    }
    opened = open_folder(root)
    assert feature_lengths(opened.videos).tolist() == [rows[video.id] for video in opened.videos]
    for video in opened.videos:
        clip = np.load(root / "clip" / f"{video.id}.npy")
        assert np.array_equal(read_aligned_clip(video, rows[video.id]), clip)
    # Row for row what the full pipeline has on the same grid.
    if layout != "actionformer":
        go(videos[:1], tmp_path / "own", modality="rgb", workers=None, i3d_flow=None)
        assert (tmp_path / "own" / "clip" / "a.npy").read_bytes() == after["clip/a.npy"]

    assert go(videos, root, **options) == Summary(skipped=2)
    (root / "clip" / "a.npy").unlink()
    assert go(videos, root, **options) == Summary(extracted=1, skipped=1)
    assert tree(root) == after
    assert "is it the same video" not in go.said


def test_other_features_are_told_and_fitted(go: Extract, tmp_path: Path) -> None:
    root = tmp_path / "set"
    video = encode(tmp_path / "a.mp4", numbered(75, 64, 96), 25)
    folder(root, "basnet", {"a": 9, "b": 4})
    options = {**CLIP_ALONE, "layout": "basnet"}
    summary = go([video], root, **options)
    assert summary.extracted == 1
    assert [line.partition("a.mp4")[2] for line in summary.misfits] == [
        ": its I3D features have 9 rows, its 75 frames make 4; is it the same video, at the same rate?"
    ]
    assert summary.misfits[0] in go.said
    clip = np.load(root / "clip" / "a.npy")
    assert len(clip) == 9
    assert np.array_equal(clip[5], clip[8])  # the last frame
    assert not np.array_equal(clip[3], clip[4])
    assert json.loads((root / "manifest" / "a.json").read_text())["grid"]["rows"] == 9
    for stream in ("rgb", "flow"):
        np.save(root / "features" / "train" / stream / "a.npy", np.zeros((4, 1024), np.float32))
    assert go([video], root, **options).extracted == 1  # they are other features now
    assert len(np.load(root / "clip" / "a.npy")) == 4

    (root / "features" / "train" / "rgb" / "a.npy").unlink()
    with pytest.raises(WtalError, match="has I3D features of none of the 1 videos"):
        go([video], root, **options)


def test_what_does_not_go_with_clip_alone(go: Extract, tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", numbered(20, 64, 96), 25)
    for options in ({}, {"layout": "basnet", "clip": False}):
        with pytest.raises(WtalError, match="--modality none extracts CLIP for I3D features that are there"):
            go([video], tmp_path / "set", **{**CLIP_ALONE, **options})
    (tmp_path / "set").mkdir()
    write_annotations(tmp_path / "set", "wtalc", [Record("a", "train", 1.0, (Instance(0.1, 0.6, "Run"),))], ["Run"])
    with pytest.raises(WtalError, match=r"no I3D features in the layout wtalc, expected .*JOINTFeatures"):
        go([video], tmp_path / "set", **{**CLIP_ALONE, "layout": "wtalc"})
    assert not (tmp_path / "set" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4"])
def test_real_videos(name: str, test_data: Path) -> None:
    path = test_data / "videos" / name
    if not path.exists():
        pytest.skip(f"WTAL_TEST_DATA has no videos/{name}")
    grid = Grid(16, 16)
    whole, sparse = VideoReader(path, Fraction(25), 64), SparseReader(path, Fraction(25), 64, grid.wanted)
    for a, b in zip(centre_pieces(whole.pictures(), grid, 64), centre_pieces(sparse.pictures(), grid, 64), strict=True):
        assert np.array_equal(a.data, b.data)
    assert whole.facts == sparse.facts
    print(f"{name}: {sparse.decoded} of {whole.facts.source_frames} frames decoded")
