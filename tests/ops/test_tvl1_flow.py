"""tvl1_flow beside its definition in NumPy, OpenCV's DualTVL1, and on odd images.

float32 and float64 part where a warp rounds a coordinate to 1/32 pixel: one unit in the last place can take the other
step, which moves that pixel's flow by about 1/32 pixel, and the flow of noise by more. So the strict comparisons are
those in which nothing is rounded differently: one level, and each warp of the definition along the op's own flow.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_cuda.backends import CUDA_DEVICES, DEVICES, at_most
from hypothesis import assume, given
from hypothesis import strategies as st
from ops.tvl1_definition import flow_of_pair
from torch import Tensor

from wtal.features.flow import to_fixed
from wtal.ops import tvl1_flow

CLOSE = 1e-4
"""Pixels. The definition sums in float64, the op in float32: 300 drawn pairs of one level and one warp, of 30
iterations each, lay within 4e-6."""


def texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth random picture, uint8."""
    noise = random.uniform(-1, 1, (height + 12, width + 12))
    for axis in (0, 1):
        for _ in range(3):
            noise = sum(np.take(noise, range(i, noise.shape[axis] - 4 + i), axis) for i in range(5))
    return ((noise - noise.min()) / (np.ptp(noise) or 1) * 255).astype(np.uint8)


def pair(random: np.random.Generator, height: int, width: int, kind: str) -> np.ndarray:
    """Two images, ``[2, H, W]``."""
    if kind == "noise":
        return random.integers(0, 256, (2, height, width), dtype=np.uint8)
    if kind == "black and white":  # no picture has larger steps
        return random.choice(np.array([0, 255], np.uint8), (2, height, width))
    dx, dy = random.integers(0, {"moving": 4, "far": min(height, width) // 2 + 1}[kind], 2)
    picture = texture(random, height + dy, width + dx)
    return np.stack([picture[dy:, dx:], picture[:height, :width]])


def op(images: np.ndarray, device: str = "cpu", **parameters: Any) -> np.ndarray:
    first, second = torch.from_numpy(np.ascontiguousarray(images)).to(device)[:, None]
    return tvl1_flow(first, second, **parameters)[0].cpu().numpy()


KINDS = ["moving", "far", "noise", "black and white"]
PARAMETERS = {
    "tau": st.floats(0.05, 0.3),
    "lam": st.floats(0.02, 0.5),
    "theta": st.floats(0.1, 0.6),
    "warps": st.integers(1, 3),
    "inner": st.integers(1, 8),
    "outer": st.integers(1, 4),
    "median": st.sampled_from([1, 3, 5]),
}


@pytest.mark.parametrize("device", DEVICES)
@at_most(60)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kind=st.sampled_from(KINDS),
    data=st.data(),
)
def test_equals_the_definition(device: str, seed: int, height: int, width: int, kind: str, data: st.DataObject) -> None:
    parameters = {name: data.draw(values, label=name) for name, values in PARAMETERS.items()}
    parameters |= {"scales": 1, "epsilon": 0}  # 0: the stopping rule never ends it an iteration earlier than the other
    images = pair(np.random.default_rng(seed), height, width, kind)
    found = [np.zeros((height, width, 2), np.float32)]
    found += [op(images, device, **parameters | {"warps": warps}) for warps in range(1, parameters["warps"] + 1)]
    expected, _ = flow_of_pair(*images, moved_by=found, **parameters)
    np.testing.assert_allclose(found[-1], expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("defaults", [False, True])
def test_levels_equal_the_definition(device: str, defaults: bool) -> None:
    """A coordinate that is rounded differently spoils the pixels around it; that is rare, an error is everywhere.

    Of 150 pairs drawn as here 1 (9 with the defaults) had more than a tenth of their pixels beyond 1e-4.
    """
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    random, good = np.random.default_rng(seed), 0
    for _ in range(24):
        height, width = random.integers(16, 49, 2)
        parameters = {
            "tau": random.uniform(0.05, 0.3),
            "lam": random.uniform(0.02, 0.5),
            "theta": random.uniform(0.1, 0.6),
            "scales": int(random.integers(2, 5)),
            "warps": int(random.integers(1, 4)),
            "inner": int(random.integers(1, 8)),
            "outer": int(random.integers(1, 4)),
            "scale_step": random.uniform(0.5, 0.9),
            "median": int(random.choice([1, 3, 5])),
        }
        if defaults:
            parameters = {"warps": 2, "inner": 5, "outer": 2}
        images = pair(random, height, width, random.choice(["moving", "noise"]))
        expected, _ = flow_of_pair(*images, epsilon=0, **parameters)
        apart = np.linalg.norm(op(images, device, epsilon=0, **parameters) - expected, axis=-1)
        good += np.mean(apart > CLOSE) <= 0.1
    assert good >= 14, f"seed {seed}"


@pytest.mark.parametrize("device", DEVICES)
@at_most(40)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    place=st.integers(1, 40),
    filtered=st.booleans(),
)
def test_stops_where_the_definition_stops(
    device: str, seed: int, height: int, width: int, place: int, filtered: bool
) -> None:
    """The change at which it stops lies between two that the definition went through, so rounding does not matter."""
    images = pair(np.random.default_rng(seed), height, width, "moving")
    parameters = {"scales": 1, "warps": 1, "inner": 10, "outer": 4, "median": 5 if filtered else 1}
    _, [changes] = flow_of_pair(*images, epsilon=0, **parameters)
    assume(len(changes) > 1)  # the same image twice changes nothing
    place = min(place, len(changes) - 1)
    low, high = changes[place], min(changes[:place])
    assume(low < 0.98 * high)
    epsilon = float(np.sqrt(np.sqrt(low * high) / (height * width)))
    expected, [stopped] = flow_of_pair(*images, epsilon=epsilon, **parameters)
    assert len(stopped) == place + 1
    found = op(images, device, epsilon=epsilon, **parameters)
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)
    if not filtered:  # then so many iterations in one go are the same arithmetic
        exactly = {"scales": 1, "warps": 1, "outer": 1, "median": 1, "epsilon": 0}
        assert np.array_equal(found, op(images, device, inner=place + 1, **exactly))
        assert not np.array_equal(found, op(images, device, inner=place, **exactly))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(64, 80), (37, 53), (16, 17)])
def test_agrees_with_opencv(device: str, size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    picture = texture(np.random.default_rng(size), size[0], size[1] + 2)
    first, second = np.ascontiguousarray(picture[:, 2:]), np.ascontiguousarray(picture[:, :-2])
    expected = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)
    assert np.linalg.norm(op(np.stack([first, second]), device) - expected, axis=-1).mean() <= 0.05
    assert abs(expected[..., 0]).mean() > 0.5  # there is motion to find


@pytest.mark.parametrize("name", ["v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4"])
def test_agrees_with_opencv_on_real_frames(name: str, test_data: Path) -> None:
    cv2, av = pytest.importorskip("cv2"), pytest.importorskip("av")
    path = test_data / "videos" / name
    if not path.exists():
        pytest.skip(f"WTAL_TEST_DATA has no videos/{name}")
    with av.open(str(path)) as container:
        frames = list(itertools.islice(container.decode(video=0), 60, 62))
    height, width = frames[0].height, frames[0].width
    scale = 256 / min(height, width)
    size = round(width * scale), round(height * scale)
    images = np.stack([cv2.resize(frame.to_ndarray(format="gray"), size) for frame in frames])
    expected = cv2.optflow.DualTVL1OpticalFlow_create().calc(*images, None)
    found = op(images)
    assert abs(expected).max() > 0.5
    assert np.linalg.norm(found - expected, axis=-1).mean() <= 0.05
    # As the networks see it: clipped, scaled and cropped, in levels of the 8 bits that others keep (40 pixels are 255).
    # On 14 pairs of both videos the difference was 0.19 to 0.33 of what rounding to 8 bits changes, on average.
    top, left = ((side - 224) // 2 for side in expected.shape[:2])
    levels, exactly = (
        to_fixed(flow)[top : top + 224, left : left + 224] * (127.5 / 32767) for flow in (found, expected)
    )
    assert abs(levels - exactly).mean() <= 0.5 * abs(np.rint(exactly) - exactly).mean()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 40), (1, 33, 15), (0, 4, 4), (1, 0, 4), (1, 4, 0)])
def test_identical_images_do_not_move(device: str, shape: tuple[int, int, int]) -> None:
    images = torch.randint(256, shape, dtype=torch.uint8, device=device)
    flow = tvl1_flow(images, images)
    assert flow.shape == (*shape, 2)
    assert flow.dtype == torch.float32
    assert not flow.any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (33, 47)])
def test_constant_images_do_not_move(device: str, shape: tuple[int, int]) -> None:
    """Of another brightness: without a gradient there is no direction to move in."""
    assert not op(np.stack([np.full(shape, 30, np.uint8), np.full(shape, 200, np.uint8)]), device).any()


@pytest.mark.parametrize("device", DEVICES)
def test_motion_past_the_edge_of_the_image(device: str) -> None:
    """Flow that leads outside by far, also at parameters for which nothing converges, reads nothing and returns."""
    images = pair(np.random.default_rng(0), 24, 37, "black and white")
    for parameters in ({"lam": 1e6, "theta": 1e3}, {"tau": 1e30}, {"tau": 1e300}, {"theta": 1e30}, {"lam": 1e30}):
        assert op(images, device, warps=3, inner=3, outer=2, **parameters).shape == (24, 37, 2)
    assert np.isfinite(op(images, device, lam=10, theta=5)).all()


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_a_pair_on_cuda_does_not_depend_on_its_batch(device: str) -> None:
    images = torch.from_numpy(np.stack([pair(np.random.default_rng(), 23, 37, kind) for kind in KINDS], 1)).to(device)
    parameters = {"warps": 2, "inner": 4, "outer": 2}
    together = tvl1_flow(*images, **parameters)
    for n in range(len(KINDS)):
        assert torch.equal(tvl1_flow(*images[:, n : n + 1], **parameters)[0], together[n])
    wide = images.transpose(2, 3).contiguous().transpose(2, 3)  # other strides, same values
    assert torch.equal(tvl1_flow(*wide, **parameters), together)


def test_a_pair_does_not_depend_on_its_batch_nor_on_the_number_of_threads() -> None:
    random = np.random.default_rng()
    images = torch.from_numpy(np.stack([pair(random, 40, 51, kind) for kind in (*KINDS, "moving")], 1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = tvl1_flow(*images)
        torch.set_num_threads(2)
        two = tvl1_flow(*images)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)
    for n in range(len(one)):
        assert torch.equal(tvl1_flow(*images[:, n : n + 1])[0], one[n])
    wide = images.transpose(2, 3).contiguous().transpose(2, 3)  # other strides, same values
    assert torch.equal(tvl1_flow(*wide), one)


@pytest.mark.parametrize(("height", "width"), [(63, 30), (64, 1), (65, 90), (131, 33)])
def test_bands_of_rows_do_not_depend_on_the_number_of_threads(height: int, width: int) -> None:
    """As high as images that are divided, and one row less."""
    images = torch.from_numpy(np.stack([pair(np.random.default_rng(), height, width, kind) for kind in KINDS], 1))
    parameters = {"warps": 2, "inner": 5, "outer": 2}
    before, found = torch.get_num_threads(), {}
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found[threads] = tvl1_flow(*images, **parameters)  # 4 pairs: each a thread, or each on all of 5
            one = tvl1_flow(*images[:, :1], **parameters)
            assert torch.equal(one[0], found[1][0]), threads
            assert torch.equal(found[threads], found[1]), threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(64, 20), (65, 31), (100, 40), (71, 17)])
def test_bands_equal_the_definition(size: tuple[int, int]) -> None:
    """Where rows are divided into bands, the rows on both sides of an edge too."""
    parameters = {"scales": 1, "warps": 1, "epsilon": 0, "inner": 7, "outer": 2, "median": 3}
    for kind in KINDS:
        images = pair(np.random.default_rng(), *size, kind)
        expected, _ = flow_of_pair(*images, **parameters)
        np.testing.assert_allclose(op(images, **parameters), expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("limit", ["default", "avx2"])
def test_narrower_vectors_compute_the_same(limit: str, tmp_path: Path) -> None:
    """What machines without AVX-512 run, chosen as torch chooses its own kernels."""
    random = np.random.default_rng()
    parameters = {"scales": 1, "warps": 1, "epsilon": 0, "inner": 7, "outer": 3}
    sizes = ((31, 45), (16, 64), (5, 3), (40, 40))
    images = [pair(random, *size, kind) for size, kind in zip(sizes, KINDS, strict=True)]
    torch.save([torch.from_numpy(np.ascontiguousarray(both)) for both in images], tmp_path / "in")
    code = f"""
import torch
from wtal.ops import tvl1_flow
images = torch.load({str(tmp_path / "in")!r})
torch.save([tvl1_flow(*both[:, None], **{parameters!r})[0] for both in images], {str(tmp_path / "out")!r})
"""
    subprocess.run([sys.executable, "-P", "-c", code], env=os.environ | {"ATEN_CPU_CAPABILITY": limit}, check=True)
    for both, found in zip(images, torch.load(tmp_path / "out"), strict=True):
        np.testing.assert_allclose(found, flow_of_pair(*both, **parameters)[0], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    images = torch.randint(256, (2, 2, 20, 24), dtype=torch.uint8, device=device)
    torch.library.opcheck(torch.ops.wtal.tvl1_flow.default, (*images, 0.25, 0.15, 0.3, 2, 1, 0.01, 3, 2, 0.8, 5))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_into_one_graph(backend: str) -> None:
    def speed(first: Tensor, second: Tensor) -> Tensor:
        return tvl1_flow(first, second, scales=2, warps=1).norm(dim=-1) * 25

    torch._dynamo.reset()
    compiled = torch.compile(speed, fullgraph=True, backend=backend)
    for shape in ((2, 20, 24), (3, 17, 30)):
        images = torch.randint(256, (2, *shape), dtype=torch.uint8)
        torch.testing.assert_close(compiled(*images), speed(*images))


def test_wrong_arguments() -> None:
    image = torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="second has shape"):
        tvl1_flow(image, image[:, :3])
    with pytest.raises(ValueError, match="first"):
        tvl1_flow(image.float(), image.float())
    for name, value in (
        ("median", 4),
        ("tau", 0.0),
        ("theta", -1.0),
        ("lam", float("nan")),
        ("epsilon", -0.1),
        ("scale_step", 1.0),
        ("scales", 0),
        ("warps", 0),
        ("inner", 0),
        ("outer", 0),
    ):
        with pytest.raises(RuntimeError, match=name):
            tvl1_flow(image, image, **{name: value})
