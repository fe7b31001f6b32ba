from __future__ import annotations

import os

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from wtal.errors import WtalError
from wtal.runs.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    own_tensors,
    restore_optimizer,
    save_checkpoint,
)
from wtal.runs.checkpoint_folder import CheckpointFolder


def test_round_trip(tmp_path) -> None:
    tensors = {"cbp.w": torch.randn(3, 4).T, "cbp.n": torch.tensor(5), "vlp.w": torch.zeros(0, 2)}
    save_checkpoint(tmp_path / "a.safetensors", tensors, {"stage": 2, "classes": ["Тест", "跳"]})
    read = load_checkpoint(tmp_path / "a.safetensors")
    assert read.facts["stage"] == 2
    assert read.facts["classes"] == ["Тест", "跳"]
    assert set(read.part("cbp")) == {"w", "n"}
    for name, tensor in tensors.items():
        assert torch.equal(read.tensors[name], tensor)
    assert os.listdir(tmp_path) == ["a.safetensors"]


FLIPPED = {"w": torch.randn(3, 5), "n": torch.tensor([1, 2, 3]), "b": torch.tensor([True, False])}


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_any_changed_byte_is_noticed_or_changes_nothing(place: float, value: int, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("flip") / "a.safetensors"
    save_checkpoint(path, FLIPPED, {"stage": 1, "classes": ["跳", "a"]})
    whole = load_checkpoint(path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= value
    path.write_bytes(bytes(data))
    try:
        read = load_checkpoint(path)
    except WtalError:
        return
    assert read.facts == whole.facts
    assert read.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in whole.tensors.items())


def test_the_last_few_are_kept(tmp_path) -> None:
    checkpoints = CheckpointFolder(tmp_path / "none-yet", keep=2)
    assert checkpoints.newest() is None
    assert checkpoints.load(pytest.fail) is None
    for number in range(1, 5):
        checkpoints.save({"w": torch.tensor(number)}, {}, number)
    assert [path.name for path in checkpoints.paths()] == [
        "checkpoint-000003.safetensors",
        "checkpoint-000004.safetensors",
    ]
    found, number = checkpoints.load(pytest.fail)
    assert number == found.tensors["w"] == 4
    with pytest.raises(WtalError, match="at least 1"):
        CheckpointFolder(tmp_path, keep=0)


def test_a_damaged_newest_one_is_passed_over_and_overwritten(tmp_path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=3)
    for number in range(1, 4):
        checkpoints.save({"w": torch.tensor(number)}, {}, number)
    for path in checkpoints.paths()[1:]:
        path.write_bytes(path.read_bytes()[:-1])
    told: list[str] = []
    found, number = checkpoints.load(told.append)
    assert number == found.tensors["w"] == 1
    assert [f"checkpoint-00000{n}" in line for n, line in zip((3, 2), told, strict=True)] == [True, True]
    checkpoints.save({"w": torch.tensor(20)}, {}, 2)  # a damaged newer one does not push it out
    assert len(checkpoints.paths()) == 3
    found, number = checkpoints.load(told.append)
    assert (number, int(found.tensors["w"])) == (2, 20)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"w": torch.ones(1)}, {})

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(WtalError, match="No space"):
        save_checkpoint(path, {"w": torch.zeros(1)}, {})
    assert torch.equal(load_checkpoint(path).tensors["w"], torch.ones(1))
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("cut", [0, 4, 60, -3])
def test_a_damaged_file_is_one_error(tmp_path, cut: int) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"w": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WtalError, match=r"a\.safetensors: not a readable checkpoint"):
        load_checkpoint(path)


def test_foreign_and_future_files_are_refused(tmp_path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.ones(1)}, foreign)
    with pytest.raises(WtalError, match="not a checkpoint of wtal"):
        load_checkpoint(foreign)
    future = tmp_path / "future.safetensors"
    safetensors.torch.save_file({"w": torch.ones(1)}, future, metadata={"wtal": '{"format": 99}'})
    with pytest.raises(WtalError, match="format 99"):
        load_checkpoint(future)
    with pytest.raises(WtalError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_another_format_is_not_called_damage(tmp_path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    for number in (1, 2):
        path = tmp_path / f"checkpoint-{number:06d}.safetensors"
        safetensors.torch.save_file({"w": torch.ones(1)}, path, metadata={"wtal": '{"format": 1}'})
    with pytest.raises(WtalError, match=r"000002\.safetensors: checkpoint format 1, but this wtal reads format 2$"):
        checkpoints.load(pytest.fail)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_an_optimiser_goes_on_as_if_nothing_had_happened(kind: type[torch.optim.Optimizer]) -> None:
    def train(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for step in range(steps):
            optimizer.zero_grad()
            model(torch.full((2, 3), float(step + 1))).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = kind(model.parameters(), lr=0.1)
    train(model, optimizer, 3)
    copied = torch.nn.Linear(3, 2)
    copied.load_state_dict(model.state_dict())
    revived = kind(copied.parameters(), lr=0.1)
    restore_optimizer(revived, {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()})
    train(model, optimizer, 2)
    train(copied, revived, 2)
    assert torch.equal(model.weight, copied.weight)


def test_frozen_encoders_stay_out_of_checkpoints() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    module[0].weight.requires_grad_(False)
    assert set(own_tensors(module)) == {
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    }
