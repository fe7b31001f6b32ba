"""Reads weights from a file of several formats: safetensors, ``torch.save``, or a TorchScript archive."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from wtal.errors import WtalError, reason
from wtal.platform.files import is_safetensors


def read_weights(path: Path, option: str = "--clip-weights") -> dict[str, Tensor]:
    """Reads a state dict on the CPU, without running code from the file.

    The format is detected from the content: safetensors, ``torch.save`` of a state dict (also under the key
    ``state_dict``, also with the prefix ``module.``), or a TorchScript archive, the format of OpenAI's CLIP files.
    The tensors of an archive are read without loading its program.

    Args:
        path: the file.
        option: the command-line option that named the file, for messages.

    Raises:
        WtalError: there is no such file, or it has another format.
    """
    if not path.is_file():
        raise WtalError(f"{option} {path}: there is no such file")
    try:
        if is_safetensors(path):
            state: Any = safetensors.torch.load_file(path)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                packed = [e for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED]
                if any("/code/" not in entry.filename for entry in packed):  # programs are never read
                    raise WtalError("it is compressed, which torch.save never does")  # the unpacked size has no limit
                scripted = [entry for entry in archive.namelist() if entry.endswith("/constants.pkl")]
                state = _read_torchscript(archive, scripted[0].split("/")[0]) if scripted else None
            if state is None:
                with path.open("rb") as file:  # with a path, torch would use the file extension
                    state = torch.load(file, map_location="cpu", weights_only=True)
        else:
            with path.open("rb") as file:
                if file.read(1) != pickle.PROTO:  # torch's own error would be unclear
                    raise WtalError("it begins neither as safetensors nor as what torch.save writes")
            # torch's format before 1.6. Reading from memory limits a wrong length in a damaged file to the real size.
            state = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise any error
        raise WtalError(
            f"{option} {path} cannot be read ({_reason(error)}); expected a state dict (.pt, .safetensors) or OpenAI's "
            "archive"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise WtalError(f"{option} {path} holds a {type(state).__name__}; expected a state dict of tensors")
    tensors = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WtalError(f"{option} {path} holds no tensor; expected a state dict")
    return tensors


def _reason(error: Exception) -> str:
    """The reason in a loader's error: torch gives it after a long text of advice."""
    found = re.search(r"Unpickler error:\s*(.+?)(?:\. |\n|$)", str(error))
    return found[1][:160] if found else reason(error)


class _Node:
    """Represents any object of a TorchScript program: only its attributes."""


# The unpickler in Python: the one in C allocates memory for any index in a damaged memo.
class _ScriptUnpickler(pickle._Unpickler):
    """Reads ``data.pkl`` of a TorchScript archive: tensors, containers, attributes; rejects everything else."""

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
