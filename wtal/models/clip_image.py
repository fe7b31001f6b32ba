"""CLIP's image encoder with its weights, from a file or downloaded by open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.models.load_clip_text import DEFAULT_MODEL, architecture, check_quick_gelu, download
from wtal.models.weight_files import read_weights


class ImageEncoder(nn.Module):
    """Encodes images to the features that CLIP compares with text features.

    Args:
        visual: open_clip's image encoder.
        size: height and width of its input.
        mean: mean of R, G and B in [0, 1] used in its training.
        std: standard deviation of R, G and B used in its training.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, visual: nn.Module, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.visual = visual
        self.size = size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, D]``, not normalised, of RGB ``images`` ``[B, 3, H, W]`` in [0, 1], resized if necessary."""
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        features: Tensor = self.visual((images - self.mean) / self.std)
        return features


def load_image_encoder(name: str = DEFAULT_MODEL, weights: Path | None = None) -> ImageEncoder:
    """Loads CLIP's image encoder. The state of the global random generator does not change.

    Args:
        name: an architecture of ``open_clip.list_models()`` (``--clip-model``).
        weights: a file for :func:`wtal.models.weight_files.read_weights` (``--clip-weights``); None lets open_clip
            download OpenAI's weights.

    Returns:
        The encoder: float32 on the CPU, frozen, in evaluation mode.

    Raises:
        WtalError: the architecture is unknown, the file cannot be read or does not fit it, or the download failed.
    """
    import open_clip

    config = architecture(name)
    custom = config.pop("custom_text", False)
    if "multimodal_cfg" in config:
        raise WtalError(f"--clip-model {name!r}: expected a CLIP with two encoders, e.g. {DEFAULT_MODEL}")
    with torch.random.fork_rng(devices=[]):
        if weights is None:
            visual: Any = download(name).visual
        else:
            state = read_weights(weights)
            check_quick_gelu(state, name, bool(config.get("quick_gelu")), weights)
            visual = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).visual
            _fill(visual, state, name, weights)
    size = visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size,) * 2
    encoder = ImageEncoder(visual, size, *_normalisation(open_clip, name))
    return encoder.float().requires_grad_(False).eval()


def _fill(visual: nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    """Copies the image encoder's part of ``state``, which must fit this architecture completely."""
    given = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    expected = visual.state_dict()
    for key, value in expected.items():
        if key not in given:
            raise WtalError(f"--clip-weights {path} is not of --clip-model {name}: visual.{key} is missing")
        if given[key].shape != value.shape:
            shapes = tuple(given[key].shape), tuple(value.shape)
            raise WtalError(
                f"--clip-weights {path} is not of --clip-model {name}: "
                f"visual.{key} has shape {shapes[0]}, expected {shapes[1]}"
            )
    if further := [key for key in given if key not in expected and ".resblocks." in key]:
        raise WtalError(
            f"--clip-weights {path} is not of --clip-model {name}: it has a layer too many, visual.{further[0]}"
        )
    visual.load_state_dict({key: given[key] for key in expected})


def _normalisation(open_clip: Any, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation used in the training of this architecture's published weights."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    config = open_clip.get_pretrained_cfg(name, "openai" if "openai" in tags else tags[0]) if tags else {}
    return (
        tuple(config.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        tuple(config.get("std") or open_clip.OPENAI_DATASET_STD),
    )
