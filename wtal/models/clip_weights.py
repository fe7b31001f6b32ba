"""CLIP's text encoder with its weights, from a file or through open_clip's own download.

open_clip is imported inside the functions: it brings torchvision along, and only a run that encodes class
names needs it.
"""

from __future__ import annotations

import difflib
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.models.clip_text import text_tower

DEFAULT_MODEL = "ViT-B-16-quickgelu"
"""The paper's CLIP. Plain ViT-B-16 takes the same weights and, without QuickGELU, computes something else."""


def load_clip(name: str = DEFAULT_MODEL, weights: Path | None = None) -> tuple[nn.Module, Any]:
    """Loads CLIP without its image encoder. The global random generator is left as it was.

    Args:
        name: an architecture of ``open_clip.list_models()`` (``--clip-model``).
        weights: a file for :func:`read_weights` (``--clip-weights``); None lets open_clip download OpenAI's
            weights.

    Returns:
        The model (float32 on the CPU, frozen, in evaluation mode) and its tokenizer.

    Raises:
        WtalError: unknown architecture, a file that cannot be read or does not fit it, or a download that
            failed.
    """
    import open_clip

    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), 1, 0.5) or [DEFAULT_MODEL]
        raise WtalError(f"--clip-model {name!r} is unknown to open_clip; did you mean {close[0]}?")
    custom = config.pop("custom_text", False)
    if "hf_model_name" in config["text_cfg"] or "multimodal_cfg" in config:
        raise WtalError(
            f"--clip-model {name!r}: its text encoder takes no prompts; expected CLIP's own Transformer, "
            f"e.g. {DEFAULT_MODEL}"
        )
    with torch.random.fork_rng(devices=[]):
        if weights is None:
            model = _download(open_clip, name)
        else:
            state = read_weights(weights)
            # Not create_model: it wants to say on standard error that these are random weights.
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
            text_tower(model)
            _fill(model, state, name, bool(config.get("quick_gelu")), weights)
    text_tower(model)
    del model.visual  # 86 million weights that nobody uses here
    model.float().requires_grad_(False).eval()
    return model, open_clip.get_tokenizer(name)


def _download(open_clip: Any, name: str) -> nn.Module:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if "openai" not in tags:
        raise WtalError(
            f"open_clip has no OpenAI weights for {name} (it has: {', '.join(tags) or 'none'}); "
            "expected --clip-weights FILE"
        )
    try:
        return open_clip.create_model(name, pretrained="openai")
    except Exception as error:  # whatever the hub client, the proxy or the disk raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WtalError(
            f"the weights of CLIP {name} could not be downloaded ({reason[:200]}); "
            "expected a network, or --clip-weights FILE with a copy fetched elsewhere"
        ) from error


def _fill(model: nn.Module, state: dict[str, Tensor], name: str, quick_gelu: bool, path: Path) -> None:
    """Copies the text encoder's part of ``state`` into the model; all of it must be of this architecture."""
    expected = model.state_dict()
    if any(key.startswith("text.") for key in expected) and "text_projection" in state:
        text = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")
        state = {f"text.{key}" if key.startswith(text) else key: value for key, value in state.items()}
    if "input_resolution" in state and not quick_gelu:
        raise WtalError(
            f"--clip-weights {path}: OpenAI's weights want QuickGELU; "
            f"expected --clip-model {name}-quickgelu instead of {name}"
        )
    needed = [key for key in expected if not key.startswith(("visual.", "logit_"))]
    missing = [key for key in needed if key not in state]
    # The image encoder tells apart what the text encoder does not: ViT-B-32 and ViT-B-16 share its shapes.
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a state dict on the CPU, and runs no code that a file brings.

    Known by content: safetensors, ``torch.save`` of a state dict (also under the key ``state_dict``, also
    with the prefix ``module.``), and the TorchScript archives in which OpenAI ships CLIP, whose tensors are
    taken out without loading the program.

    Raises:
        WtalError: there is no such file, or it is none of these.
    """
    if not path.is_file():
        raise WtalError(f"--clip-weights {path}: there is no such file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                packed = [e for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED]
                if any("/code/" not in entry.filename for entry in packed):  # programs may be: they are never read
                    raise WtalError("it is compressed, which torch.save never does")  # what it unpacks to has no bound
                scripted = [entry for entry in archive.namelist() if entry.endswith("/constants.pkl")]
                state: Any = _read_torchscript(archive, scripted[0].split("/")[0]) if scripted else None
            if state is None:
                state = torch.load(path, map_location="cpu", weights_only=True)
        elif path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WtalError(
            f"--clip-weights {path} cannot be read ({reason[:160]}); "
            "expected a state dict (.pt, .safetensors) or OpenAI's archive"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise WtalError(f"--clip-weights {path} holds a {type(state).__name__}; expected a state dict of tensors")
    tensors = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WtalError(f"--clip-weights {path} holds no tensor; expected a state dict")
    return tensors


class _Node:
    """Stands for any object of a TorchScript program: its attributes and nothing else."""


# The unpickler in Python: the one in C takes memory for whatever index a damaged memo names.
class _ScriptUnpickler(pickle._Unpickler):
    """Reads ``data.pkl`` of a TorchScript archive: tensors, containers, attributes; refuses all else."""

    def __init__(self, file: BinaryIO, storage: Callable[[torch.dtype, str], Tensor]) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Node
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "HalfStorage"): torch.float16,
            ("torch", "BFloat16Storage"): torch.bfloat16,
            ("torch", "FloatStorage"): torch.float32,
            ("torch", "DoubleStorage"): torch.float64,
            ("torch", "LongStorage"): torch.int64,
            ("torch", "IntStorage"): torch.int32,
            ("torch", "BoolStorage"): torch.bool,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch.jit._pickle":  # typed containers: restore_type_tag(value, type), build_intlist(values), ...
            return _first
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        return self._storage(dtype, key)


def _first(value: Any, *_: Any) -> Any:
    return value


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _read_torchscript(archive: zipfile.ZipFile, root: str) -> dict[str, Tensor]:
    def storage(dtype: torch.dtype, key: str) -> Tensor:
        data = bytearray(archive.read(f"{root}/data/{key}"))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)

    program = _ScriptUnpickler(io.BytesIO(archive.read(f"{root}/data.pkl")), storage).load()
    state: dict[str, Tensor] = {}
    _collect(program, "", state, set())
    return state


def _collect(node: _Node, prefix: str, state: dict[str, Tensor], seen: set[int]) -> None:
    seen.add(id(node))
    for name, value in vars(node).items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Node) and id(value) not in seen:
            _collect(value, f"{prefix}{name}.", state, seen)
