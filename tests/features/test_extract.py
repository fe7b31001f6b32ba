"""From video files to features, whole: the real clips, alignment in time, bits, shards, faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from drills import tree
from videos import encode, lossless, texture

from wtal.data.clip_alignment import read_aligned_clip
from wtal.data.dataset_toml import open_own
from wtal.data.features import read_features
from wtal.errors import WtalError
from wtal.features.extract import Summary
from wtal.features.options import Extraction
from wtal.features.shard import Shard, this_shard

Extract = Callable[..., Summary]


@pytest.fixture(scope="module")
def real(clips: Path, go: Extract, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of two of the real clips: 720p at 25 frames a second, and QCIF at 29.97."""
    root = tmp_path_factory.mktemp("real") / "set"
    assert go([clips / f"{name}.mp4" for name in SNIPPETS], root) == Summary(extracted=2)
    return root


SNIPPETS = {"bigbuckbunny": 8, "carphone_pristine": 6}
FRAMES = {"bigbuckbunny": 132, "carphone_pristine": 100}


def test_the_real_clips_have_the_shapes_counted_by_hand(real: Path, clips: Path) -> None:
    assert {path.name for path in real.iterdir()} == {*("clip", "i3d", "manifest", "manifest.json", "labels.csv")}
    for name, count in SNIPPETS.items():
        assert count == FRAMES[name] // 16
        i3d, clip = np.load(real / "i3d" / f"{name}.npy"), np.load(real / "clip" / f"{name}.npy")
        assert (i3d.shape, i3d.dtype) == ((count, 2048), np.float32)
        assert clip.shape == (count, 24)
        assert i3d[:, :1024].std() > 0.01 < i3d[:, 1024:].std()
        entry = json.loads((real / "manifest" / f"{name}.json").read_text())
        assert entry["frames"] == FRAMES[name]
        assert entry["source"]["bytes"] == (clips / f"{name}.mp4").stat().st_size
        assert entry["versions"]["av"]
        assert entry["batch"] == {"rgb": 1, "flow": 1, "clip": 1}


def test_two_shards_and_a_flow_cache_give_the_same_bytes(real: Path, clips: Path, go: Extract, tmp_path: Path) -> None:
    root = tmp_path / "set"
    videos = [clips / f"{name}.mp4" for name in SNIPPETS]
    for index in range(2):
        assert go(videos, root, Shard(index, 2), flow_cache=tmp_path / "flow", workers=1 + index).extracted == 1
    assert tree(root) == tree(real)
    blocks = list((tmp_path / "flow").rglob("*.npy"))
    assert len(blocks) == sum(-(-frames // 16) for frames in FRAMES.values())

    # Again from the cache: the same bytes, or it read something else.
    shutil.rmtree(root)
    go([clips / "carphone_pristine.mp4"], root, flow_cache=tmp_path / "flow")
    name = "i3d/carphone_pristine.npy"
    assert (root / name).read_bytes() == (real / name).read_bytes()


def test_a_second_run_skips_what_is_complete(real: Path, clips: Path, go: Extract, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(real, root)
    videos = [clips / f"{name}.mp4" for name in SNIPPETS]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert go(videos, root, verify=True) == Summary(skipped=2)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before

    (root / "clip" / "carphone_pristine.npy").unlink()
    (root / "i3d" / ".carphone_pristine.npy.99.tmp").write_bytes(b"half")
    assert go(videos, root) == Summary(extracted=1, skipped=1)
    assert tree(root) == tree(real)


def test_other_settings_are_refused(real: Path, clips: Path, go: Extract) -> None:
    for options, told in (
        ({"stride": 8}, "stride 16, now 8"),
        ({"dtype": "float16"}, "dtype"),
        ({"clip": False}, "clip"),
        ({"flow_backend": "opencv"}, 'flow "tvl1 by wtal", now "tvl1 by opencv"'),
    ):
        with pytest.raises(WtalError, match=f"has features made with .*{told}.*or another --out"):
            go(clips, real, **options)


def test_a_flash_on_the_first_frame_of_a_snippet_is_in_the_flow_before(go: Extract, tmp_path: Path) -> None:
    """The one exception: the last flow of a snippet is the motion to that frame."""
    whole = texture(50, 60, seed=3)
    dark = [whole[n % 3 : 32 + n % 3, n % 2 : 32 + n % 2] for n in range(48)]
    lit = [np.full_like(frame, 255) if n == 32 else frame for n, frame in enumerate(dark)]
    go(
        [lossless(tmp_path / f"{name}.mkv", frames) for name, frames in (("dark", dark), ("lit", lit))],
        tmp_path / "out",
    )
    i3d = [np.load(tmp_path / "out" / "i3d" / f"{name}.npy") for name in ("dark", "lit")]
    for columns, rows in ((slice(0, 1024), [False, False, True]), (slice(1024, 2048), [False, True, True])):
        assert (i3d[0][:, columns] != i3d[1][:, columns]).any(axis=1).tolist() == rows


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 50])
def test_a_flash_moves_its_snippet_and_no_other(go: Extract, tmp_path: Path, rate: float | Fraction) -> None:
    """A flash at second s, in frames of the source's own rate, through the features back to seconds."""
    whole, seconds, second = texture(120, 140, seed=3), 2.0, 0.64 + 0.26
    count = int(seconds * rate)
    still = [whole[40 + n % 3 : 72 + n % 3, 40 + n % 2 : 88 + n % 2] for n in range(count)]  # trembling: there is flow
    flash = [np.full_like(frame, 255) if second <= n / rate < second + 0.12 else frame for n, frame in enumerate(still)]
    videos = [lossless(tmp_path / f"{name}.mkv", frames, rate) for name, frames in (("dark", still), ("lit", flash))]
    go(videos, tmp_path / "out")
    (tmp_path / "out" / "labels.csv").write_text("video,label\ndark,None\nlit,Flash\n")
    go(videos, tmp_path / "out")
    dark, lit = sorted(open_own(tmp_path / "out" / "dataset.toml").videos, key=lambda video: video.id)
    held = int(np.floor(dark.timebase.position(second)))
    assert held == 1
    features = [read_features(video) for video in (dark, lit)]
    assert features[0].shape == (3, 2048)
    for columns in (slice(0, 1024), slice(1024, 2048)):
        # The flow of a snippet's last frame looks at the next one's first, which is no flash here.
        moved = (features[0][:, columns] != features[1][:, columns]).any(axis=1)
        assert moved.tolist() == [row == held for row in range(3)]
    clip = [read_aligned_clip(video, 3) for video in (dark, lit)]
    assert (clip[0] != clip[1]).any(axis=1).tolist() == [row == held for row in range(3)]


def test_clip_at_its_own_rate_and_half_precision(clips: Path, go: Extract, tmp_path: Path, real: Path) -> None:
    go([clips / "carphone_pristine.mp4"], tmp_path, modality="rgb", clip_fps=5.0, dtype="float16", stride=8)
    i3d, clip = (
        np.load(tmp_path / "i3d" / "carphone_pristine.npy"),
        np.load(tmp_path / "clip" / "carphone_pristine.npy"),
    )
    assert (i3d.shape, clip.shape, i3d.dtype, clip.dtype) == ((11, 1024), (20, 24), np.float16, np.float16)
    whole = np.load(real / "i3d" / "carphone_pristine.npy")[:, :1024]
    assert np.array_equal(i3d[::2], whole.astype(np.float16))


def test_wrong_options_are_told_before_anything_is_computed(
    clips: Path, go: Extract, tmp_path: Path, i3d_weights: dict[str, Path]
) -> None:
    for options, told in (
        ({"i3d_flow": None}, "expected --i3d-flow FILE with I3D's Kinetics weights .* or --modality rgb"),
        ({"i3d_rgb": tmp_path / "no.pt"}, "--i3d-rgb .*no.pt: no such file"),
        ({"clip_weights": tmp_path / "no.pt"}, "--clip-weights .*no.pt: no such file"),
        ({"stride": 0}, "--stride 0"),
        ({"crop": 48}, "--crop 48: .* at most --short-side 32"),
        ({"clip_fps": 50.0}, "--clip-fps 50: expected 0.01 up to --fps 25"),
        ({"clip_fps": 1e-6}, "--clip-fps 1e-06: expected 0.01 up to"),
        ({"fps": 1e-6}, "--fps 1e-06: expected a number from 0.01"),
        ({"fps": float("nan")}, "--fps nan"),
        ({"i3d_flow": i3d_weights["i3d_rgb"]}, "--i3d-flow .*rgb.pt"),
        ({"clip_model": "no-such"}, "no-such"),
        ({"workers": 0}, "--workers"),
        ({"layout": "basnet", "modality": "rgb"}, "--modality rgb: the layout basnet"),
        ({"layout": "wtalc", "stride": 4}, "--stride goes with --layout own"),
        ({"device": "tpu"}, "--device tpu"),
    ):
        with pytest.raises(WtalError, match=told):
            go(clips, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert Extraction(videos=(clips,), out=tmp_path).streams == ("rgb", "flow", "clip")
    with pytest.raises(WtalError, match=r"no such file \(1 of 1 video missing\)"):
        go([tmp_path / "no.mp4"], tmp_path / "out")


def test_shards_split_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    videos = list(range(11))
    parts = [this_shard(f"{i}/4").of(videos) for i in (1, 2, 3, 4)]
    assert sorted(video for part in parts for video in part) == videos
    assert {len(part) for part in parts} == {2, 3}
    assert this_shard(None) == Shard()
    for wrong in ("0/4", "5/4", "1", "a/b", "1/0"):
        with pytest.raises(WtalError, match="expected i/n with i from 1 to n"):
            this_shard(wrong)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(WtalError, match="RANK=2 WORLD_SIZE=4 in the environment without MASTER_ADDR"):
        this_shard(None)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    shard = this_shard(None)
    assert (shard, shard.local_rank, shard.local_count) == (Shard(2, 4, launched=True), 0, 2)
    assert this_shard("1/2") == Shard(0, 2)
    for rank in ("4", "-1", "two", ""):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(WtalError, match="expected what torchrun sets there, or --shard i/n"):
            this_shard(None)


def test_features_of_somebody_else_are_not_overwritten(go: Extract, tmp_path: Path) -> None:
    video = lossless(tmp_path / "v.mkv", [texture(40, 40)] * 20)
    theirs = tmp_path / "out" / "i3d" / "v.npy"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"downloaded")
    with pytest.raises(WtalError, match=r"i3d/v\.npy: there already, and not from wtal-extract"):
        go(video, tmp_path / "out", clip=False)
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {"i3d", "v.npy"}
    assert theirs.read_bytes() == b"downloaded"
    theirs.unlink()
    assert go(video, tmp_path / "out", clip=False) == Summary(extracted=1, form=tmp_path / "out" / "labels.csv")


def test_a_truncated_video_that_is_allowed_is_told_and_noted(go: Extract, tmp_path: Path) -> None:
    frames = [texture(60, 80)[n % 20 : n % 20 + 40, n % 30 : n % 30 + 48] for n in range(100)]
    whole = encode(tmp_path / "whole.mp4", frames, container_options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    assert len(go(tmp_path / "cut.mp4", tmp_path / "out", clip=False, modality="rgb").failed) == 1
    summary = go(tmp_path / "cut.mp4", tmp_path / "out", clip=False, modality="rgb", allow_truncated=True)
    assert summary.extracted == 1
    facts = json.loads((tmp_path / "out" / "manifest" / "cut.json").read_text())["source"]
    assert facts["missing_seconds"] == pytest.approx(4 - facts["seconds"], abs=0.05)
    assert f"cut.mp4: truncated, {facts['missing_seconds']:.1f} s are missing at its end" in go.said
