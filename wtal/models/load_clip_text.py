"""CLIP's text encoder with its weights, from a file or downloaded by open_clip.

open_clip is imported inside the functions, because it imports torchvision and only a run that encodes class
names needs it.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wtal.errors import WtalError, reason
from wtal.models.clip_text import text_tower
from wtal.models.weight_files import read_weights

DEFAULT_MODEL = "ViT-B-16-quickgelu"
"""The paper's CLIP. Plain ViT-B-16 accepts the same weights but has no QuickGELU, so its results are wrong."""


def load_clip(name: str = DEFAULT_MODEL, weights: Path | None = None) -> tuple[nn.Module, Any]:
    """Loads CLIP without its image encoder. The state of the global random generator does not change.

    Args:
        name: an architecture of ``open_clip.list_models()`` (``--clip-model``).
        weights: a file for :func:`read_weights` (``--clip-weights``); None lets open_clip download OpenAI's
            weights.

    Returns:
        The model (float32 on the CPU, frozen, in evaluation mode) and its tokenizer.

    Raises:
        WtalError: the architecture is unknown, the file cannot be read or does not fit it, or the download
            failed.
    """
    import open_clip

    config = architecture(name)
    custom = config.pop("custom_text", False)
    if "hf_model_name" in config["text_cfg"] or "multimodal_cfg" in config:
        raise WtalError(
            f"--clip-model {name!r}: its text encoder takes no prompts; expected CLIP's own Transformer, "
            f"e.g. {DEFAULT_MODEL}"
        )
    with torch.random.fork_rng(devices=[]):
        if weights is None:
            model = download(name)
        else:
            state = read_weights(weights)
            # Not create_model, which warns on standard error that the weights are random.
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
            text_tower(model)
            _fill(model, state, name, bool(config.get("quick_gelu")), weights)
    text_tower(model)
    del model.visual  # 86 million weights that are not needed
    model.float().requires_grad_(False).eval()
    return model, open_clip.get_tokenizer(name)


def architecture(name: str) -> dict[str, Any]:
    """open_clip's description of an architecture.

    Raises:
        WtalError: open_clip has no architecture with that name.
    """
    import open_clip

    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), 1, 0.5) or [DEFAULT_MODEL]
        raise WtalError(f"--clip-model {name!r} is unknown to open_clip; did you mean {close[0]}?")
    return config


def download(name: str) -> nn.Module:
    """A complete CLIP model with OpenAI's weights, downloaded by open_clip.

    Raises:
        WtalError: there are no such weights for this architecture, or the download failed.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if "openai" not in tags:
        raise WtalError(
            f"open_clip has no OpenAI weights for {name} (it has: {', '.join(tags) or 'none'}); "
            "expected --clip-weights FILE"
        )
    try:
        with _hushed():
            return open_clip.create_model(name, pretrained="openai")
    except Exception as error:  # any error of the hub client, the proxy or the disk
        raise WtalError(
            f"the weights of CLIP {name} could not be downloaded ({reason(_first_cause(error))}); "
            "expected a network, or --clip-weights FILE with a copy fetched elsewhere"
        ) from error


@contextmanager
def _hushed() -> Iterator[None]:
    """Disables the log of the hub client, which reports every attempt twice; its progress bar stays."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _first_cause(error: BaseException) -> BaseException:
    """The original error; the errors raised from it are less precise."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def _fill(model: nn.Module, state: dict[str, Tensor], name: str, quick_gelu: bool, path: Path) -> None:
    """Copies the text encoder's part of ``state`` into the model; it must fit this architecture completely."""
    expected = model.state_dict()
    if any(key.startswith("text.") for key in expected) and "text_projection" in state:
        text = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")
        state = {f"text.{key}" if key.startswith(text) else key: value for key, value in state.items()}
    check_quick_gelu(state, name, quick_gelu, path)
    needed = [key for key in expected if not key.startswith(("visual.", "logit_"))]
    missing = [key for key in needed if key not in state]
    # Check the image encoder too: the text encoders of ViT-B-32 and ViT-B-16 have the same shapes.
    wrong = [key for key in expected if key in state and not key.startswith("logit_")]
    wrong = [key for key in wrong if state[key].shape != expected[key].shape]
    further = [key for key in state if key not in expected and ".resblocks." in key]
    if missing or wrong or further:
        if wrong:
            shapes = tuple(state[wrong[0]].shape), tuple(expected[wrong[0]].shape)
            detail = f"{wrong[0]} has shape {shapes[0]}, expected {shapes[1]}"
        elif missing:
            detail = f"{len(missing)} of {len(needed)} text tensors are missing, the first is {missing[0]}"
        else:
            detail = f"it has a layer too many, {further[0]}"
        raise WtalError(f"--clip-weights {path} is not of --clip-model {name}: {detail}")
    model.load_state_dict({key: state[key] for key in needed}, strict=False)


def check_quick_gelu(state: dict[str, Tensor], name: str, quick_gelu: bool, path: Path) -> None:
    """Reject OpenAI's archive for an architecture without QuickGELU, whose results would be wrong."""
    if "input_resolution" in state and not quick_gelu:
        raise WtalError(
            f"--clip-weights {path}: OpenAI's weights want QuickGELU; "
            f"expected --clip-model {name}-quickgelu instead of {name}"
        )
