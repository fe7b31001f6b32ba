"""TV-L1 flow: what it measures, its fixed point, the worker processes and the cache."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing.util
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import texture

from wtal.errors import WtalError
from wtal.features.flow import BACKENDS, BOUND, STEPS, FlowBackend, centre_crop, flow_block, grayscale, to_fixed
from wtal.features.flow_pool import FlowPool
from wtal.platform.files import WriteError


@pytest.fixture(scope="module", params=["wtal", "opencv"])
def tvl1(request: pytest.FixtureRequest) -> FlowBackend:
    return BACKENDS[request.param]()


@pytest.fixture(scope="module")
def moving() -> list[np.ndarray]:
    """Grey frames ``[48, 64]`` that move 2 pixels right and 1 down from one to the next."""
    whole = grayscale(texture(120, 120))
    return [whole[40 - n : 88 - n, 40 - 2 * n : 104 - 2 * n].copy() for n in range(5)]


def test_it_measures_motion_in_pixels(tvl1: FlowBackend, moving: list[np.ndarray]) -> None:
    flow = tvl1(moving[0], moving[1])
    assert (flow.shape, flow.dtype) == ((48, 64, 2), np.float32)
    assert np.median(flow[8:-8, 8:-8], axis=(0, 1)) == pytest.approx([2, 1], abs=0.1)


def test_still_frames_cost_nothing_and_give_what_the_solver_gives(tvl1: FlowBackend, moving: list[np.ndarray]) -> None:
    def never(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        raise AssertionError("a frame that is the one before was computed")

    assert not flow_block(never, [moving[0], moving[0].copy()], 32, repeat=True).any()
    assert not tvl1(moving[0], moving[0].copy()).any()


def test_grey_is_what_opencv_makes_of_it() -> None:
    cv2 = pytest.importorskip("cv2")
    colours = np.arange(0, 1 << 24, 7, dtype=np.uint32)
    image = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)[None]
    found = grayscale(image)
    assert found.dtype == np.uint8
    assert np.array_equal(found, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def test_the_backends_agree(moving: list[np.ndarray]) -> None:
    ours, theirs = (flow_block(BACKENDS[name](), moving, 32, repeat=False) for name in ("wtal", "opencv"))
    assert np.abs(ours - theirs.astype(np.float64)).mean() * BOUND / STEPS <= 0.05
    assert not np.array_equal(ours, theirs)  # or one of them is the other


@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=20))
def test_fixed_point_clips_and_is_precise(values: list[float]) -> None:
    flow = np.array(values, np.float32)
    unit = to_fixed(flow).astype(np.float64) / STEPS
    assert np.abs(unit).max() <= 1
    assert np.abs(unit * BOUND - np.clip(flow, -20, 20)).max() <= BOUND / STEPS


def test_a_block_is_pairs_of_whole_frames_then_cropped(tvl1: FlowBackend, moving: list[np.ndarray]) -> None:
    pairs = [to_fixed(centre_crop(tvl1(a, b), 32)) for a, b in itertools.pairwise(moving)]
    assert np.array_equal(flow_block(tvl1, moving, 32, repeat=False), np.stack(pairs))
    assert np.array_equal(flow_block(tvl1, moving, 32, repeat=True), np.stack([*pairs, pairs[-1]]))
    assert np.array_equal(flow_block(tvl1, moving[:1], 32, repeat=True), np.zeros((1, 32, 32, 2)))


def test_crops_are_central() -> None:
    image = np.arange(7 * 10).reshape(7, 10)
    assert centre_crop(image, 3).tolist() == image[2:5, 3:6].tolist()
    assert centre_crop(image, 7).tolist() == image[:, 1:8].tolist()


def test_workers_give_the_same_bits_and_keep_them(tvl1: FlowBackend, moving: list[np.ndarray], tmp_path: Path) -> None:
    wanted = flow_block(tvl1, moving, 32, repeat=True)
    cached = tmp_path / "cache" / "0.npy"
    name = next(name for name, backend in BACKENDS.items() if isinstance(tvl1, backend))
    with FlowPool(name, 2) as pool:
        assert len(pool._pool._processes) == 2  # before there is work
        assert pool.identity == tvl1.identity
        blocks = [pool.submit(moving, 32, True, None) for _ in range(3)]
        kept = pool.submit(moving, 32, True, cached)
        assert all(np.array_equal(block.result(), wanted) for block in [*blocks, kept])
        assert np.array_equal(np.load(cached), wanted)
        np.save(cached, wanted + 1)
        assert np.array_equal(pool.submit(moving, 32, True, cached).result(), wanted + 1)  # read, not computed

        np.save(cached, wanted)
        whole = cached.read_bytes()
        wrong = [wanted[:-1], wanted.astype(np.int32), wanted[:, :-1], np.array(["no flow"])]
        for array in wrong:
            np.save(cached, array)
            assert np.array_equal(pool.submit(moving, 32, True, cached).result(), wanted)
            assert cached.read_bytes() == whole
        for damaged in (b"", whole[:-1], b"no array"):
            cached.write_bytes(damaged)
            assert np.array_equal(pool.submit(moving, 32, True, cached).result(), wanted)
            assert cached.read_bytes() == whole

        workers = list(pool._pool._processes)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)

        def until_it_is_noticed() -> None:
            for _ in range(100):
                pool.submit(moving, 32, True, None).result()
                time.sleep(0.1)

        with pytest.raises(WtalError, match="a flow worker died"):
            until_it_is_noticed()


def test_a_cache_that_cannot_be_written_ends_the_run(moving: list[np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with FlowPool("wtal", 1) as pool, pytest.raises(WriteError, match=r"0\.npy: cannot be written"):
        pool.submit(moving, 32, True, tmp_path / "file" / "0.npy").result()


def test_an_interrupt_between_a_workers_start_and_its_first_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The signal goes to the process: a thread that does not block it takes it, whatever the main thread blocks."""
    spawn = multiprocessing.util.spawnv_passfds
    children = []

    def spawn_then_interrupt(path: str, arguments: list[str], descriptors: list[int]) -> int:
        pid: int = spawn(path, arguments, descriptors)
        if "--multiprocessing-fork" in arguments:  # a worker, not multiprocessing's own tracker
            children.append(pid)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)  # until the other thread has it
        return pid

    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", spawn_then_interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            FlowPool("wtal", 2)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    done.set()
    other.join()
    assert children
    monkeypatch.undo()
    gc.collect()  # the pool ends its workers when nobody has it any more
    for pid in children:
        with contextlib.suppress(ChildProcessError):  # waited for already
            os.waitpid(pid, 0)
    assert capfd.readouterr().err == ""


def test_without_opencv_or_its_contributed_modules(monkeypatch: pytest.MonkeyPatch, moving: list[np.ndarray]) -> None:
    import cv2

    with monkeypatch.context() as patch:
        patch.delattr(cv2, "optflow")
        with pytest.raises(WtalError, match=r"opencv-contrib-python-headless, as pip install 'wtal\[opencv-flow\]'"):
            BACKENDS["opencv"]()
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(WtalError, match=r"expected pip install 'wtal\[opencv-flow\]'"):
        BACKENDS["opencv"]()
    assert flow_block(BACKENDS["wtal"](), moving, 32, repeat=False).any()  # needs none
