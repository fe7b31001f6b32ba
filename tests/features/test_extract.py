"""From video files to features, whole: the real clips, alignment in time, bits, shards, faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from videos import lossless, texture

from wtal.data.features import read_aligned_clip, read_features
from wtal.data.own import open_own
from wtal.errors import WtalError
from wtal.features.extract import Summary, extract
from wtal.features.options import Extraction
from wtal.features.shard import Shard, this_shard
from wtal.progress import Reporter

Extract = Callable[..., Summary]


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A CLIP of two small layers, known to open_clip by name, and a file with random weights of it."""
    import open_clip
    import safetensors.torch
    import torch

    folder = tmp_path_factory.mktemp("small-clip")
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (folder / "wtal-small.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        safetensors.torch.save_file(open_clip.CLIP(**config).state_dict(), folder / "w.safetensors")
    return "wtal-small", folder / "w.safetensors"


@pytest.fixture(scope="module")
def go(i3d_weights: dict[str, Path], small_clip: tuple[str, Path]) -> Extract:
    """Extracts with small frames, which the networks take as well, and keeps what is said in ``go.said``."""

    def run(videos: object, out: Path, shard: Shard | None = None, **options: object) -> Summary:
        places = tuple(videos) if isinstance(videos, list) else (videos,)
        weights = {**i3d_weights, "clip_model": small_clip[0], "clip_weights": small_clip[1]}
        job = Extraction(videos=places, out=out, **{**weights, "short_side": 32, "crop": 32, "workers": 2, **options})
        said = StringIO()
        summary = extract(job, shard or Shard(), Reporter(Console(file=said, width=200)))
        run.said = said.getvalue()
        return summary

    return run


def tree(root: Path) -> dict[str, bytes]:
    """Every file under a folder, also hidden ones."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def real(clips: Path, go: Extract, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of two of the real clips: 720p at 25 frames a second, and QCIF at 29.97."""
    root = tmp_path_factory.mktemp("real") / "set"
    assert go([clips / f"{name}.mp4" for name in SNIPPETS], root) == Summary(extracted=2)
    return root


SNIPPETS = {"bigbuckbunny": 8, "carphone_pristine": 6}
FRAMES = {"bigbuckbunny": 132, "carphone_pristine": 100}


def test_the_real_clips_have_the_shapes_counted_by_hand(real: Path, clips: Path) -> None:
    assert {path.name for path in real.iterdir()} == {
        *("clip", "i3d", "manifest", "manifest.json", "dataset.toml", "labels.csv")
    }
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
    ):
        with pytest.raises(WtalError, match=f"has features made with .*{told}.*or another --out"):
            go(clips, real, **options)


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


def test_bad_videos_do_not_end_the_run(clips: Path, go: Extract, tmp_path: Path, real: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    data = (clips / "carphone_pristine.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    videos = [tmp_path / "broken.mp4", clips / "carphone_pristine.mp4", tmp_path / "cut.mp4"]
    summary = go(videos, tmp_path / "out", modality="rgb", clip=False)
    assert (summary.extracted, [path.name for path, _ in summary.failed]) == (1, ["broken.mp4", "cut.mp4"])
    assert "cannot be opened" in summary.failed[0][1]
    assert {path.stem for path in (tmp_path / "out" / "manifest").iterdir()} == {"carphone_pristine"}
    found = np.load(tmp_path / "out" / "i3d" / "carphone_pristine.npy")
    assert np.array_equal(found, np.load(real / "i3d" / "carphone_pristine.npy")[:, :1024])


def test_wrong_options_are_told_before_anything_is_computed(clips: Path, go: Extract, tmp_path: Path) -> None:
    weights = Extraction(videos=(clips,), out=tmp_path)
    for options, told in (
        ({"i3d_flow": None}, "expected --i3d-flow FILE with I3D's Kinetics weights .* or --modality rgb"),
        ({"i3d_rgb": tmp_path / "no.pt"}, "--i3d-rgb .*no.pt: no such file"),
        ({"clip_weights": tmp_path / "no.pt"}, "--clip-weights .*no.pt: no such file"),
        ({"stride": 0}, "--stride 0"),
        ({"crop": 48}, "--crop 48: .* at most --short-side 32"),
        ({"clip_fps": 50.0}, "--clip-fps 50: expected up to --fps 25"),
        ({"workers": 0}, "--workers"),
        ({"layout": "basnet", "modality": "rgb"}, "--modality rgb: the layout basnet"),
        ({"layout": "wtalc", "stride": 4}, "--stride goes with --layout own"),
        ({"device": "tpu"}, "--device tpu"),
    ):
        with pytest.raises(WtalError, match=told):
            go(clips, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert weights.streams == ("rgb", "flow", "clip")
    with pytest.raises(WtalError, match=r"no such file \(1 of 1 videos are missing\)"):
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
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    shard = this_shard(None)
    assert (shard, shard.local_rank, shard.local_count) == (Shard(2, 4, launched=True), 0, 2)
    assert this_shard("1/2") == Shard(0, 2)
