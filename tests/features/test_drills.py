"""Drills on the command itself: killed and started again, interrupted, launched by torchrun, and how much memory.

The long forms are left out of a plain ``pytest``: ``pytest -m slow tests/features/test_drills.py``.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drills import kill, members, recorded, recording, start, tree
from videos import encode, lossless, texture

Tree = dict[str, bytes]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, i3d_weights: dict[str, Path]) -> tuple[list[object], Tree, float]:
    """Arguments of a short job on three videos, what it writes undisturbed, and how long it takes."""
    folder = tmp_path_factory.mktemp("drill")
    (folder / "videos").mkdir()
    picture = texture(120, 120)
    for index, count in enumerate((34, 20, 50)):
        frames = [picture[30 + n % 5 : 62 + n % 5, 20 + n % 7 : 60 + n % 7] for n in range(count)]
        lossless(folder / "videos" / f"{index}.mkv", frames)
    weights = ("--i3d-rgb", i3d_weights["i3d_rgb"], "--i3d-flow", i3d_weights["i3d_flow"], "--no-clip")
    small = ("--short-side", 32, "--crop", 32, "--workers", 2, "--threads", 1, "--name", "drill")
    arguments = [folder / "videos", *weights, *small]
    began = time.monotonic()
    process = start(*arguments, "--out", folder / "out", log=folder / "log.txt")
    assert process.wait(300) == 0, (folder / "log.txt").read_text()
    return arguments, tree(folder / "out"), time.monotonic() - began


def drill(arguments: list[object], undisturbed: Tree, seconds: float, kills: int, root: Path) -> list[float]:
    """Kill the job so often, at random moments while it runs, then let it end; the moments, in seconds."""
    moments: list[float] = []
    seed = random.randrange(2**32)
    print("seed", seed)  # pytest shows it where the drill fails
    rng = random.Random(seed)
    out = root / "out"
    while len(moments) < kills:
        process = start(*arguments, "--out", out, log=root / "log.txt")
        moment = rng.uniform(0, seconds)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            kill(process)
            moments.append(moment)
            continue
        assert process.returncode == 0, (root / "log.txt").read_text()  # it was done before: once more from the start
        assert tree(out) == undisturbed
        subprocess.run(["rm", "-r", str(out)], check=True)
    process = start(*arguments, "--out", out, log=root / "log.txt")
    assert process.wait(300) == 0, (root / "log.txt").read_text()
    assert tree(out) == undisturbed
    return moments


def test_killed_and_started_again_it_writes_the_same_bytes(
    job: tuple[list[object], Tree, float], tmp_path: Path
) -> None:
    assert len(drill(*job, kills=2, root=tmp_path)) == 2


@pytest.mark.slow
def test_killed_ten_times(job: tuple[list[object], Tree, float], tmp_path: Path) -> None:
    moments = drill(*job, kills=10, root=tmp_path)
    print("killed after", ", ".join(f"{moment:.1f}" for moment in moments), f"s of {job[2]:.1f} s")


def test_an_interrupt_ends_it_soon_and_a_bad_video_is_told(
    job: tuple[list[object], Tree, float], tmp_path: Path
) -> None:
    arguments = [tmp_path, *job[0][1:]]
    (tmp_path / "a.mkv").write_bytes(b"no video")
    frames = [texture(300, 300)[n % 9 : 256 + n % 9, :256] for n in range(160)]  # seconds a block
    encode(tmp_path / "b.mp4", frames)
    log = tmp_path / "log.txt"
    process = start(*arguments, "--short-side", 256, "--crop", 224, "--out", tmp_path / "out", log=log)
    while process.poll() is None and (b"a.mkv: " not in log.read_bytes() or len(members(process.pid)) < 3):
        time.sleep(0.1)
    time.sleep(1)
    began = time.monotonic()
    kill(process, signal.SIGINT)
    assert process.returncode == 130, log.read_text()
    assert time.monotonic() - began < 30  # and not the minute that the flow of the video takes
    assert "Traceback" not in log.read_text()
    assert not list((tmp_path / "out").rglob("*.npy"))

    (tmp_path / "b.mp4").unlink()
    process = start(*arguments, "--out", tmp_path / "new", log=log)
    assert process.wait(300) == 1
    assert "wtal-extract: failed: " in log.read_text()
    assert "a.mkv: cannot be opened as a video" in log.read_text()


SLOW_START = """
import os, sys, time
if "--multiprocessing-fork" in sys.orig_argv:
    open(os.environ["MARK"], "w").close()
    time.sleep(1)
"""


def test_an_interrupt_of_a_terminal_while_workers_start(job: tuple[list[object], Tree, float], tmp_path: Path) -> None:
    """Ctrl-C goes to every process there is, also to workers that Python is still starting."""
    log = tmp_path / "log.txt"
    (tmp_path / "sitecustomize.py").write_text(SLOW_START)
    process = start(*job[0], "--out", tmp_path / "out", log=log, PYTHONPATH=str(tmp_path), MARK=str(tmp_path / "mark"))
    while process.poll() is None and not (tmp_path / "mark").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()
    deadline = time.monotonic() + 60
    while members(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert log.read_text() == "wtal-extract: interrupted\n"


@pytest.mark.slow
def test_torchrun_splits_the_list_and_ends_together(job: tuple[list[object], Tree, float], tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    command = [*launch, sys.executable, "-P", "-m", "wtal.cli.extract", *job[0]]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == job[1]

    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "0.mkv").write_bytes(b"no video")  # its process is done long before the other's
    (tmp_path / "videos" / "1.mkv").symlink_to(Path(str(job[0][0])) / "2.mkv")
    command[command.index(job[0][0])] = tmp_path / "videos"
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "bad")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode != 0
    assert "0.mkv: cannot be opened" in done.stderr
    assert (tmp_path / "bad" / "i3d" / "1.npy").exists()


DECODE = """
import resource, sys
from fractions import Fraction
from pathlib import Path
from wtal.features.decode import VideoReader
from wtal.features.flow import centre_crop
frames = total = 0
for frame in VideoReader(Path(sys.argv[1]), Fraction(25), 256):
    frames, total = frames + 1, total + int(centre_crop(frame, 224)[0, 0, 0])
# Not ru_maxrss: that begins with the peak of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(frames, int(peak.split()[1]) * 1024)
"""


def decode_an_hour(path: Path, rate: float) -> int:
    """Peak resident bytes of decoding and cropping an hour of 320 x 240, made at ``rate`` frames a second."""
    picture = texture(300, 400)
    count = round(3600 * rate)
    encode(
        path,
        (picture[n % 60 : n % 60 + 240, n % 80 : n % 80 + 320] for n in range(count)),
        rate,
        options={"preset": "ultrafast"},
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", DECODE, str(path)], capture_output=True, text=True, check=True, timeout=580
    )
    frames, peak = map(int, done.stdout.split())
    assert frames == 90_000
    print(f"one hour at {rate:g} frames a second: peak {peak / 1e6:.0f} MB")
    return peak


def test_an_hour_is_decoded_in_little_memory(tmp_path: Path) -> None:
    """90,000 frames come out; few go in, so that making the video takes no time."""
    assert decode_an_hour(tmp_path / "v.mp4", 0.2) < 1.5e9


@pytest.mark.slow
def test_an_hour_at_25_frames_a_second(tmp_path: Path) -> None:
    assert decode_an_hour(tmp_path / "v.mp4", 25) < 1.5e9


LEAST = 80e6
"""Bytes."""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path: Path, i3d_weights: dict[str, Path], clip_weights: Path) -> None:
    """The whole pipeline at full size on 10 and 60 seconds; the picture moves twice a second, as flow is slow.

    Frames that were all kept, whole, cropped or as flow, would add 188 MB or more, in grey 109 MB.
    """
    picture = texture(300, 500)
    found = []
    for seconds in (10, 60):
        frames = [picture[n % 40 : n % 40 + 256, n % 80 : n % 80 + 340] for n in range(2 * seconds)]
        video = encode(tmp_path / f"{seconds}.mp4", frames, 2)
        weights = ("--i3d-rgb", i3d_weights["i3d_rgb"], "--i3d-flow", i3d_weights["i3d_flow"])
        process = start(
            *(video, "--out", tmp_path / f"out{seconds}", *weights, "--clip-weights", clip_weights, "--workers", 2),
            log=tmp_path / "log.txt",
            **recording(tmp_path / f"peaks{seconds}"),
        )
        assert process.wait(3600) == 0, (tmp_path / "log.txt").read_text()
        peaks = recorded(tmp_path / f"peaks{seconds}")
        assert {kind: len(sizes) for kind, sizes in peaks.items() if kind != "other"} == {"command": 1, "worker": 2}
        found.append([peaks["command"][0], *sorted(peaks["worker"])])
        print(f"{seconds} s: peaks of the command and its workers", *(f"{size / 1e6:.0f} MB" for size in found[-1]))
    assert found[1][0] - found[0][0] < LEAST
    for short, long in zip(found[0][1:], found[1][1:], strict=True):
        assert long - short < LEAST


SEQUENCE = Path(__file__).parents[2] / "docs" / "extract.md"


def documented(small: bool) -> str:
    """The sequence of commands of the page, as a shell script; with small frames and little training if asked for."""
    block = re.search(r"```sh\n(# From clips to detections.*?)```", SEQUENCE.read_text(), re.DOTALL)
    assert block is not None
    script = block[1].replace("\\\n", " ")
    assert "wtal-extract" in script
    assert "wtal-predict" in script
    if small:
        script = script.replace("wtal-extract ", "wtal-extract --short-side 32 --crop 32 ")
        stages = " ".join(f"--schedule.{name}-epochs 1" for name in ("warmup", "b", "f"))
        script = script.replace("wtal-train ", f"wtal-train {stages} --schedule.no-control ")
    return script


Follow = Callable[[dict[Path, str], bool], Path]
"""Of videos with their label, and whether frames and training are small; gives the folder it ran in."""


@pytest.fixture
def follow(clip_weights: Path, i3d_weights: dict[str, Path], tmp_path: Path) -> Follow:
    """Runs the page's sequence where videos and weights have the page's names."""

    def run(videos: dict[Path, str], small: bool) -> Path:
        (tmp_path / "videos").mkdir()
        for path in videos:
            (tmp_path / "videos" / path.name).symlink_to(path)
        rows = "".join(f"{path.stem},{label}\n" for path, label in videos.items())
        (tmp_path / "labels.csv").write_text(f"video,label\n{rows}")
        for name, path in (("rgb.pt", i3d_weights["i3d_rgb"]), ("flow.pt", i3d_weights["i3d_flow"])):
            (tmp_path / name).symlink_to(path)
        (tmp_path / "vit_b_16.safetensors").symlink_to(clip_weights)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euxc", documented(small)],
            cwd=tmp_path,
            env={**environment, "WTAL_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=3600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout)
        return tmp_path

    return run


def detections(root: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads((root / "detections.json").read_text())["results"]


def test_the_documented_sequence_ends_in_detections(follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    videos = {tmp_path / "made" / f"{label}.mp4": label for label in ("Riding", "Talking")}
    for index, path in enumerate(videos):
        encode(path, [texture(60, 60, index)[n % 9 : 32 + n % 9, n % 7 : 40 + n % 7] for n in range(40)])
    root = follow(videos, True)
    for label in videos.values():
        assert np.load(root / "kitchen" / "i3d" / f"{label}.npy").shape == (2, 2048)
        assert np.load(root / "kitchen" / "clip" / f"{label}.npy").shape == (2, 512)
        assert label in detections(root)


@pytest.mark.slow
def test_the_documented_sequence_on_real_videos(follow: Follow, test_data: Path) -> None:
    """Two videos of ActivityNet, one of them at 19.62 frames a second, with their labels from its annotations."""
    annotations = json.loads((test_data / "activitynet" / "anet_anno_action.json").read_text())
    labels = {path: annotations[path.stem]["annotations"][0]["label"] for path in test_data.glob("videos/*.mp4")}
    root = follow(labels, False)
    assert set(labels.values()) == {"Clean and jerk", "Walking the dog"}
    for path in labels:
        seconds = annotations[path.stem]["duration_second"]
        i3d, clip = (np.load(root / "kitchen" / kind / f"{path.stem}.npy") for kind in ("i3d", "clip"))
        assert i3d.shape == (len(clip), 2048)
        assert clip.shape == (len(clip), 512)
        assert abs(len(clip) - seconds * 25 / 16) <= 1
        found = detections(root)[path.stem]
        assert found
        for detection in found:
            start, end = detection["segment"]
            assert 0 <= start < end <= seconds + 16 / 25
            assert detection["label"] in labels.values()
