"""Weights are known by what is in the file, never by its name, and nothing in it is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from wtal.errors import WtalError
from wtal.models.weight_files import read_weights
from wtal.platform.files import is_safetensors

NAMES = ("w.safetensors", "w.pt", "w.bin", "w")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_every_kind_under_every_name(tmp_path: Path, name: str, kind: str) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    path = tmp_path / name
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    found = read_weights(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert is_safetensors(path) == (kind == "safetensors")


class Program:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_program_in_a_file_is_not_run(tmp_path: Path, name: str, kind: str) -> None:
    state = {"a": Program(tmp_path / "ran")}
    path = tmp_path / name
    if kind == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(WtalError, match=f"--clip-weights .*{name} cannot be read"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x93NUMPY\x01\x00", b"<!DOCTYPE html>", b"\xff" * 8 + b"{" * 9])
def test_what_is_no_weights_is_told_in_plain_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    told = r"w\.safetensors cannot be read \(it begins neither as safetensors nor as what torch\.save writes\)"
    with pytest.raises(WtalError, match=told):
        read_weights(path)


def test_damaged_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(4)}, tmp_path / "w")
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-3])
    with pytest.raises(WtalError, match=r"w cannot be read \(.*\); expected a state dict"):
        read_weights(tmp_path / "w")
