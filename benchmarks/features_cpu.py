"""Extraction on the CPU beside the usual way, all sides in turn in every round, so that a busy minute hits them alike.

    python -P benchmarks/features_cpu.py --table features-cpu.txt

Times are the medians of the rounds; a ratio is the median of the rounds' ratios. The sides, videos and weights are
those of ``test_features.py``. For two idle cores; ``--rounds 1 --frames 17`` shows soon whether all of it runs.
``--parts pipeline --rounds 1 --frames 0`` runs the pipelines on the whole videos, half an hour.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import cv2
import numpy as np
import torch
from conftest import machine
from test_features import CPU, ROOT, VIDEOS, generated, moving_pairs, run_measured, write

from wtal.errors import WtalError
from wtal.features.decode import VideoReader
from wtal.features.networks import Network, clip_network, rgb_network
from wtal.features.snippet_centres import Grid, centre_pieces
from wtal.features.sparse_reader import SparseReader
from wtal.models.clip_image import load_image_encoder
from wtal.models.i3d import load_i3d
from wtal.models.weight_files import read_weights
from wtal.ops import tvl1_flow
from wtal.platform.device import Device, choose_device

Side = Callable[[], object]
PARTS = ("flow", "decoding", "networks", "pipeline")


class Report:
    """Prints, and keeps what it printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)

    def compare(
        self, group: str, sides: Mapping[str, Side], base: str, rounds: int, wanted: Mapping[str, float] | None = None
    ) -> None:
        """Times all sides in every round; each line says how many times as fast as ``base`` a side is.

        ``wanted``: by side, how many times as fast as ``base`` it should be.
        """
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds + 1):
            for name, run in sides.items():
                began = time.perf_counter()
                run()
                if turn > 0 or rounds == 1:  # the first one warms up
                    times[name].append(time.perf_counter() - began)
            if rounds == 1:
                break
        self.table(group, times, base, wanted or {})

    def table(
        self,
        group: str,
        times: Mapping[str, list[float]],
        base: str,
        wanted: Mapping[str, float],
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self.say(f"\n{group}, rounds: {len(times[base])}")
        for name, seconds in times.items():
            ratio = statistics.median(slow / own for slow, own in zip(times[base], seconds, strict=True))
            line = f"  {name:<40} {1e3 * statistics.median(seconds):>10.1f} ms"
            if name != base:
                line += f"   {ratio:.2f} times as fast as {base}"
            if least := wanted.get(name):
                line += f"   wanted {least:g}: {'met' if ratio >= least else 'MISSED'}"
            self.say(line + (notes or {}).get(name, ""))


def on_threads(threads: int, run: Side) -> Side:
    def call() -> object:
        torch.set_num_threads(threads)
        try:
            return run()
        finally:
            torch.set_num_threads(1)

    return call


def flow(report: Report, name: str, frames: list[np.ndarray], rounds: int) -> None:
    pairs = moving_pairs(frames, 4)
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    tensors = [(torch.from_numpy(a)[None], torch.from_numpy(b)[None]) for a, b in pairs]

    def op() -> None:
        for first, second in tensors:
            tvl1_flow(first, second)

    def opencv() -> None:
        for first, second in pairs:
            solver.calc(first, second, None)

    group = f"TV-L1, {len(pairs)} pairs of {name}, one after the other, {pairs[0][0].shape[1]} x {pairs[0][0].shape[0]}"
    beside_opencv = {"OpenCV, 1 thread": opencv, "op, 1 thread": on_threads(1, op)}
    report.compare(group, beside_opencv, "OpenCV, 1 thread", rounds, {"op, 1 thread": 6})
    both = {"op, 1 thread": on_threads(1, op), "op, 2 threads": on_threads(2, op)}
    report.compare(group, both, "op, 1 thread", 5 * rounds, {"op, 2 threads": 1.8})


def bf16() -> Device | None:
    try:
        return choose_device("cpu", "bf16", cpu_bf16=True)
    except WtalError as error:
        print(error)
        return None


def networks(report: Report, weights: Mapping[str, Path], rounds: int) -> None:
    random = np.random.default_rng(0)
    window = random.integers(0, 256, (16, 224, 224, 3), dtype=np.uint8)
    image = window[0]
    plain, encoder = load_i3d(read_weights(weights["rgb"]), 3, "rgb"), load_image_encoder(weights=weights["clip"])

    @torch.inference_mode()
    def i3d() -> object:
        return plain(torch.from_numpy(window).permute(3, 0, 1, 2)[None] / 127.5 - 1)

    @torch.inference_mode()
    def clip() -> object:
        return encoder(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)

    def ours(network: Network, data: np.ndarray) -> Side:
        return lambda: network.add(data, lambda _: None)

    devices = {"wtal": CPU} | ({"wtal, bf16": low} if (low := bf16()) else {})
    sides = {name: ours(rgb_network(weights["rgb"], device, 1), window) for name, device in devices.items()}
    report.compare("I3D, one snippet, one stream, 1 thread", {"as published": i3d, **sides}, "as published", rounds)
    model = "ViT-B-16-quickgelu"
    sides = {name: ours(clip_network(model, weights["clip"], device, 1), image) for name, device in devices.items()}
    report.compare("CLIP ViT-B/16, one frame, 1 thread", {"as published": clip, **sides}, "as published", rounds)


def decoding(report: Report, video: Path, rounds: int) -> None:
    grid = Grid(16, 16)

    def every() -> None:
        for picture in VideoReader(video, Fraction(25), 256).pictures():
            picture()

    def sparse() -> None:
        for _ in centre_pieces(SparseReader(video, Fraction(25), 256, grid.wanted).pictures(), grid, 224):
            pass

    sides = {"every frame as a picture": every, "wtal, the centres of snippets": sparse}
    report.compare(f"decoding {video.stem}, decoders have 4 threads", sides, "every frame as a picture", rounds)


def pipeline(report: Report, name: str, short: Path, weights: Mapping[str, Path], folder: Path, rounds: int) -> None:
    """From the start of a command to its end, on one core."""
    start = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-P"]
    plain = [str(ROOT / "benchmarks" / "plain_extraction.py"), str(short), *map(str, weights.values())]
    ours = ["-m", "wtal.cli.extract", str(short), "--workers", "1", "--threads", "1", "--quiet", "--i3d-rgb"]
    ours += [str(weights["rgb"]), "--i3d-flow", str(weights["flow"]), "--clip-weights", str(weights["clip"])]
    sides = {"plain pipeline": None, "wtal": "float32"} | ({"wtal, bf16": "bf16"} if bf16() else {})
    folder.mkdir()
    times: dict[str, list[float]] = {side: [] for side in sides}
    peaks: dict[str, int] = {}
    expected = 0
    for turn in range(rounds):
        for side, precision in sides.items():
            out = str(folder / f"{turn}-{side}")
            command = [*plain, f"{out}.npz"] if precision is None else [*ours, "--out", out, "--precision", precision]
            seconds, peak = run_measured([*start, *command])
            rows = {len(np.load(path)) for path in folder.glob(f"{turn}-{side}/i3d/*.npy")}
            if precision is None:
                expected = len(np.load(f"{out}.npz")["rgb"])
            elif rows != {expected}:
                raise RuntimeError(f"{side} made {rows} rows, the plain pipeline {expected}")
            times[side].append(seconds)
            peaks[side] = max(peaks.get(side, 0), peak)
    notes = {side: f"   peak {peak / 2**20:.0f} MiB" for side, peak in peaks.items()}
    wanted = {"wtal": 5, "wtal, bf16": 7}
    report.table(f"whole pipeline, {name}, one core, loading included", times, "plain pipeline", wanted, notes)


def some_frames(video: Path, count: int) -> list[np.ndarray]:
    """Frames from the middle of a video, at 25 a second."""
    return list(itertools.islice(VideoReader(video, Fraction(25), 256), 60, 60 + count))


def cut(video: Path, count: int, folder: Path) -> Path:
    """A file with a few frames of a video."""
    return write(folder / f"{video.stem}-{count}.mkv", some_frames(video, count), "ffv1", "bgr0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="write what is printed to this file too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=49, help="of each video, for the whole pipeline; 0: all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of the benchmark; default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    report, began = Report(), time.perf_counter()
    command = f"python -P benchmarks/features_cpu.py --parts {' '.join(options.parts)} --rounds {options.rounds}"
    frames = f" --frames {options.frames}" if "pipeline" in options.parts else ""
    report.say(f"Printed by: {command}{frames}. Weights are random.\n")
    for line in machine():
        report.say(line)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = VIDEOS or [write(folder / "generated.mp4", generated(400), "libx264", "yuv444p")]
        cuts = [some_frames(video, 50) for video in videos]
        weights = {"rgb": folder / "rgb.pt", "flow": folder / "flow.pt", "clip": folder / "clip.safetensors"}
        for script, names in (("random_i3d_weights.py", ("rgb", "flow")), ("random_clip_weights.py", ("clip",))):
            command = [sys.executable, "-P", str(ROOT / "tools" / script), *(str(weights[key]) for key in names)]
            subprocess.run(command, check=True, capture_output=True)
        for video, frames in zip(videos, cuts, strict=True):
            if "flow" in options.parts:
                flow(report, video.stem, frames, options.rounds)
            if "decoding" in options.parts:
                decoding(report, video, options.rounds)
        if "networks" in options.parts:
            networks(report, weights, options.rounds)
        if "pipeline" in options.parts:
            for video in videos:
                part = cut(video, options.frames, folder) if options.frames else video
                name = f"{options.frames} frames of {video.stem}" if options.frames else video.stem
                pipeline(report, name, part, weights, folder / video.stem, options.rounds)
    report.say(f"\n{time.perf_counter() - began:.0f} s in all")
    if options.table:
        options.table.write_text("\n".join(report.lines) + "\n")


if __name__ == "__main__":
    main()
