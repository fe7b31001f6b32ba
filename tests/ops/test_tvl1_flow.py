"""tvl1_flow beside OpenCV's DualTVL1, and on odd images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wtal.ops import tvl1_flow


def moving(height: int, width: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random texture, and the same moved to the right."""
    cv2 = pytest.importorskip("cv2")
    noise = np.random.default_rng(height * width).uniform(0, 255, (height, width + shift)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    texture = ((texture - texture.min()) / (texture.max() - texture.min()) * 255).astype(np.uint8)
    return np.ascontiguousarray(texture[:, shift:]), np.ascontiguousarray(texture[:, :width])


@pytest.mark.parametrize("size", [(64, 80), (37, 53), (16, 17)])
def test_agrees_with_opencv(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    first, second = moving(*size, 2)
    expected = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)
    found = tvl1_flow(torch.from_numpy(first)[None], torch.from_numpy(second)[None])[0].numpy()
    assert np.linalg.norm(found - expected, axis=-1).mean() <= 0.05
    assert abs(expected[..., 0]).mean() > 0.5  # there is motion to find


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 40), (1, 33, 15), (0, 4, 4), (1, 0, 4)])
def test_identical_images_do_not_move(shape: tuple[int, int, int]) -> None:
    images = torch.randint(256, shape, dtype=torch.uint8)
    flow = tvl1_flow(images, images)
    assert flow.shape == (*shape, 2)
    assert flow.dtype == torch.float32
    assert not flow.any()


def test_opcheck() -> None:
    images = torch.randint(256, (2, 2, 20, 24), dtype=torch.uint8)
    torch.library.opcheck(torch.ops.wtal.tvl1_flow.default, (*images, 0.25, 0.15, 0.3, 2, 1, 0.01, 3, 2, 0.8, 5))


def test_wrong_arguments() -> None:
    image = torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="second has shape"):
        tvl1_flow(image, image[:, :3])
    with pytest.raises(RuntimeError, match="median is 4"):
        tvl1_flow(image, image, median=4)
