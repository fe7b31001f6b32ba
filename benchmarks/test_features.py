"""From video to features beside OpenCV's flow and the plain pipeline: ``pytest benchmarks/test_features.py``.

Frames are those of the real videos under ``WTAL_TEST_DATA`` where that is set, else generated ones that move. Weights
are random; they change no time. The plain pipeline is ``plain_extraction.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wtal.errors import WtalError
from wtal.features.decode import Picture, VideoReader
from wtal.features.flow import grayscale
from wtal.features.networks import clip_network, rgb_network
from wtal.features.snippet_centres import Grid, centre_pieces
from wtal.features.sparse_reader import SparseReader
from wtal.models.clip_image import load_image_encoder
from wtal.models.i3d import load_i3d
from wtal.models.weight_files import read_weights
from wtal.ops import tvl1_flow
from wtal.platform.device import Device, choose_device

av = pytest.importorskip("av", reason="wtal[opencv-flow] is not installed")
cv2 = pytest.importorskip("cv2", reason="wtal[opencv-flow] is not installed")

ROOT = Path(__file__).parents[1]
CPU = Device(torch.device("cpu"))
FRAMES = 49  # three snippets and a frame: OpenCV takes a second for each
VIDEOS = sorted((Path(os.environ.get("WTAL_TEST_DATA", "/nowhere")) / "videos").glob("*.mp4"))


def generated(count: int) -> list[np.ndarray]:
    """A smooth picture that moves 3 pixels right and 1 down a frame: RGB ``[256, 341, 3]``."""
    noise = np.random.default_rng(0).integers(0, 256, (256 + count, 341 + 3 * count, 3), dtype=np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (9, 9), 2), None, 0, 255, cv2.NORM_MINMAX)
    return [picture[count - n :, 3 * (count - n) :][:256, :341].copy() for n in range(count)]


def write(path: Path, frames: list[np.ndarray], codec: str, pix_fmt: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session", params=[path.stem for path in VIDEOS] or ["generated"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video as it is."""
    if VIDEOS:
        return next(path for path in VIDEOS if path.stem == request.param)
    return write(tmp_path_factory.mktemp("whole") / "generated.mp4", generated(400), "libx264", "yuv444p")


@pytest.fixture(scope="session")
def frames(video: Path) -> list[np.ndarray]:
    """Some of its frames, short side 256, past what may be a title."""
    return list(itertools.islice(VideoReader(video, Fraction(25), 256), 60, 60 + FRAMES))


@pytest.fixture(scope="session")
def short(frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """These frames as a video at 25 frames a second, without loss."""
    return write(tmp_path_factory.mktemp("short") / "short.mkv", frames, "ffv1", "bgr0")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    paths = {"rgb": folder / "rgb.pt", "flow": folder / "flow.pt", "clip": folder / "clip.safetensors"}
    for script, names in (("random_i3d_weights.py", ("rgb", "flow")), ("random_clip_weights.py", ("clip",))):
        command = [sys.executable, "-P", str(ROOT / "tools" / script), *(str(paths[name]) for name in names)]
        subprocess.run(command, check=True, capture_output=True)
    return paths


def moving_pairs(frames: list[np.ndarray], count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every eighth pair of neighbouring frames that differ, in grey.

    Of a video below 25 frames a second some frames are there twice; extraction computes no flow between these.
    """
    every = itertools.pairwise(map(grayscale, frames))
    return [pair for pair in every if not np.array_equal(*pair)][::8][:count]


@pytest.mark.parametrize(("side", "threads"), [("wtal", 1), ("wtal, two threads", 2), ("OpenCV", 1)])
def test_flow(benchmark: Any, measure: Any, frames: list[np.ndarray], video: Path, side: str, threads: int) -> None:
    pairs = 4
    grey, later = (torch.from_numpy(np.stack(side)) for side in zip(*moving_pairs(frames, pairs), strict=True))
    cv2.setNumThreads(1)
    solver = cv2.optflow.DualTVL1OpticalFlow_create()

    def wtal() -> np.ndarray:
        return torch.cat([tvl1_flow(grey[n : n + 1], later[n : n + 1]) for n in range(pairs)]).numpy()

    def opencv() -> np.ndarray:
        return np.stack([solver.calc(grey[n].numpy(), later[n].numpy(), None) for n in range(pairs)])

    benchmark.extra_info["rate"] = (pairs, "pairs/s")
    found = measure(
        f"TV-L1, {pairs} pairs of {video.stem}, one after the other, {grey.shape[2]} x {grey.shape[1]}",
        side,
        opencv if side == "OpenCV" else wtal,
        threads,
        6 if side == "OpenCV" else None,
    )
    if side == "OpenCV":
        assert np.linalg.norm(found - wtal(), axis=-1).mean() <= 0.05


def bf16() -> Device:
    try:
        return choose_device("cpu", "bf16", cpu_bf16=True)
    except WtalError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("side", ["wtal", "wtal, bf16", "as published"])
def test_i3d(benchmark: Any, measure: Any, weights: dict[str, Path], side: str) -> None:
    window = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), dtype=np.uint8)
    plain = load_i3d(read_weights(weights["rgb"]), 3, "rgb")
    network = rgb_network(weights["rgb"], bf16() if side == "wtal, bf16" else CPU, 1)

    @torch.inference_mode()
    def published() -> np.ndarray:
        x = torch.from_numpy(window).permute(3, 0, 1, 2)[None]
        return plain(x / 127.5 - 1).numpy()

    def wtal() -> np.ndarray:
        rows: list[np.ndarray] = []
        network.add(window, rows.append)
        return np.stack(rows)

    benchmark.extra_info["rate"] = (1, "snippets/s")
    found = measure("I3D, one snippet, one stream", side, published if side == "as published" else wtal)
    exact = published()
    assert np.linalg.norm(found - exact) <= (0.03 if "bf16" in side else 1e-5) * np.linalg.norm(exact)


@pytest.mark.parametrize("side", ["wtal", "wtal, bf16", "as published"])
def test_clip(benchmark: Any, measure: Any, weights: dict[str, Path], side: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    network = clip_network("ViT-B-16-quickgelu", weights["clip"], bf16() if side == "wtal, bf16" else CPU, 1)
    plain = load_image_encoder(weights=weights["clip"])

    def wtal() -> np.ndarray:
        rows: list[np.ndarray] = []
        network.add(image, rows.append)
        return np.stack(rows)

    @torch.inference_mode()
    def published() -> np.ndarray:
        return plain(torch.from_numpy(image).permute(2, 0, 1)[None] / 255).numpy()

    benchmark.extra_info["rate"] = (1, "frames/s")
    found = measure("CLIP ViT-B/16, one frame", side, published if side == "as published" else wtal)
    exact = published()
    assert np.linalg.norm(found - exact) <= (0.05 if "bf16" in side else 1e-4) * np.linalg.norm(exact)


@pytest.mark.parametrize("side", ["wtal", "every frame, the centres as pictures", "every frame as a picture"])
def test_decoding(benchmark: Any, measure: Any, video: Path, side: str) -> None:
    """The frames that CLIP alone needs at one a snippet; decoders have four threads."""
    grid = Grid(16, 16)

    def made(picture: Picture) -> Picture:
        image = picture()
        return lambda: image

    def centre_frames() -> list[np.ndarray]:
        reader: VideoReader | SparseReader
        if side == "wtal":
            reader = SparseReader(video, Fraction(25), 256, grid.wanted)
        else:
            reader = VideoReader(video, Fraction(25), 256)
        pictures = reader.pictures()
        if side == "every frame as a picture":
            pictures = map(made, pictures)
        return [piece.data for piece in centre_pieces(pictures, grid, 224)]

    whole = VideoReader(video, Fraction(25), 256)
    for _ in whole.pictures():
        pass
    benchmark.extra_info["rate"] = (whole.facts.seconds, "video seconds/s")
    measure(f"decoding the centres of snippets, {video.stem}", side, centre_frames)


def run_measured(command: list[str]) -> tuple[float, int]:
    """Seconds of a command, and the peak of its resident memory with that of its workers."""
    start, peaks = time.perf_counter(), dict[str, int]()
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                session = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3])
                found = re.search(r"VmHWM:\s+(\d+) kB", (entry / "status").read_text())
            except OSError:
                continue
            if session == process.pid and found:
                peaks[entry.name] = max(peaks.get(entry.name, 0), 1024 * int(found[1]))
        time.sleep(0.05)
    assert process.returncode == 0
    return time.perf_counter() - start, sum(peaks.values())


@pytest.mark.parametrize("side", ["wtal", "wtal, bf16", "plain pipeline"])
def test_whole_pipeline(
    benchmark: Any, video: Path, short: Path, weights: dict[str, Path], side: str, tmp_path: Path
) -> None:
    """Three snippets, from the start of the command to its end, loading included; one thread, one worker.

    Loading takes most of it, so no ratio is wanted here: ``features_cpu.py --parts pipeline`` has that, on more frames.
    """
    plain = [str(ROOT / "benchmarks" / "plain_extraction.py"), str(short), *map(str, weights.values())]
    ours = ["-m", "wtal.cli.extract", str(short), "--out", str(tmp_path / "out"), "--workers", "1", "--threads", "1"]
    ours += ["--i3d-rgb", str(weights["rgb"]), "--i3d-flow", str(weights["flow"]), "--clip-weights"]
    ours += [str(weights["clip"]), "--quiet", "--precision", "bf16" if "bf16" in side else "float32"]
    if "bf16" in side:
        bf16()
    found: list[tuple[float, int]] = []
    command = [*plain, str(tmp_path / "plain.npz")] if side == "plain pipeline" else ours
    benchmark.group = f"whole pipeline, {FRAMES // 16} snippets of {video.stem}, a core"
    benchmark.extra_info.update(side=side, threads=1, at_least=None, rate=(FRAMES // 16, "snippets/s"))
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]  # flow, decoding and networks on one core
    benchmark.pedantic(lambda: found.append(run_measured([*pinned, sys.executable, "-P", *command])), rounds=1)
    benchmark.extra_info["peak"] = found[0][1]
    if side == "plain pipeline":  # they agree, as the tests of each part say
        arrays = np.load(tmp_path / "plain.npz")
        subprocess.run([sys.executable, "-P", *ours], check=True)
        i3d, clip = (np.load(tmp_path / "out" / name / "short.npy") for name in ("i3d", "clip"))
        entry = json.loads((tmp_path / "out" / "manifest" / "short.json").read_text())
        assert entry["frames"] == FRAMES
        for name, array, limit in (
            ("rgb", i3d[:, :1024], 1e-3),
            ("flow", i3d[:, 1024:], 0.05),
            ("clip", clip, 1e-3),
        ):
            assert np.linalg.norm(array - arrays[name]) <= limit * np.linalg.norm(arrays[name]), name
