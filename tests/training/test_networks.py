"""A CBP branch of several networks: the mean of their logits, each trained as it would be alone."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

import wtal
from wtal.data.batches import Batch, TrainingBatches
from wtal.errors import WtalError
from wtal.inference.branches import Branches
from wtal.inference.saved_model import detect_test_videos, open_run
from wtal.models.cbp import CBP, CBPEnsemble, build_cbp
from wtal.platform.device import Device
from wtal.platform.distributed import SINGLE_PROCESS
from wtal.platform.progress import Reporter
from wtal.runs.checkpoint import load_checkpoint
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.config import CBPConfig, LossConfig, RunConfig
from wtal.settings.recipe import from_table, load_recipe
from wtal.training.gradients import add_gradients
from wtal.training.job import prepare
from wtal.training.pseudo_labels import PseudoLabels
from wtal.training.rank_labels import PseudoLabelQuality
from wtal.training.trainer import Trainer, clipped

CPU = Device(torch.device("cpu"))
SMALL = CBPConfig(networks=3, dim=8, heads=2, levels=2, window=3, dropout=0.0, input_dropout=0.0, attention=True)


def ensemble(seed: int = 0) -> CBPEnsemble:
    torch.manual_seed(seed)
    made = build_cbp(6, 3, SMALL)
    assert isinstance(made, CBPEnsemble)
    made.set_statistics(torch.arange(6.0), torch.full((6,), 2.0))
    return made.double()


def test_logits_are_the_mean_of_networks_that_differ() -> None:
    branch = ensemble().eval()
    x, lengths = torch.randn(2, 9, 6, dtype=torch.float64), torch.tensor([9, 4])
    each = [network(x, lengths) for network in branch.networks]
    torch.testing.assert_close(branch(x, lengths), sum(each) / 3)
    assert not torch.allclose(each[0], each[1])
    assert not torch.allclose(each[1], each[2])
    assert (branch.stride, branch.reach) == (branch.networks[0].stride, branch.networks[0].reach)
    for network in branch.networks:
        torch.testing.assert_close(network.input_mean, torch.arange(6.0, dtype=torch.float64))
    assert isinstance(build_cbp(6, 3, dataclasses.replace(SMALL, networks=1)), CBP)


@pytest.mark.parametrize("micro", [0, 2])
@pytest.mark.parametrize("taught", [False, True])
def test_each_network_has_the_gradient_that_it_has_alone(micro: int, taught: bool) -> None:
    branch = ensemble().train()
    together = Branches({"cbp": branch}, {})
    lengths = [7, 3, 5]
    random = torch.Generator().manual_seed(1)
    targets = [torch.randint(-1, 2, (n, 3), dtype=torch.int8, generator=random) for n in lengths]
    pseudo_labels = PseudoLabels(targets, None, PseudoLabelQuality()) if taught else None
    config = RunConfig(loss=LossConfig(topk_divisor=2, contrast=0.3), cbp=SMALL)
    config = dataclasses.replace(config, batch=dataclasses.replace(config.batch, micro=micro))
    for chosen in range(3):
        batch = Batch(
            torch.randn(3, 7, 6, dtype=torch.float64, generator=random),
            None,
            torch.tensor(lengths),
            torch.eye(3),
            torch.arange(3),
            torch.zeros(3, dtype=torch.int64),
        )
        branch.zero_grad()
        terms = add_gradients(together, "cbp", batch, pseudo_labels, config, CPU, SINGLE_PROCESS, chosen)
        found = [[p.grad for p in network.parameters() if p.grad is not None] for network in branch.networks]
        assert [bool(gradients) for gradients in found] == [number == chosen for number in range(3)]
        branch.zero_grad()
        alone = Branches({"cbp": branch.networks[chosen]}, {})
        assert add_gradients(alone, "cbp", batch, pseudo_labels, config, CPU, SINGLE_PROCESS) == terms
        own = [p.grad for p in branch.networks[chosen].parameters() if p.grad is not None]
        torch.testing.assert_close(found[chosen], own)


def test_each_network_is_clipped_by_itself() -> None:
    short, long = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    short.weight.grad, long.weight.grad = torch.tensor([[0.5]]), torch.tensor([[40.0]])
    assert (clipped(short, 2.0), clipped(long, 2.0)) == (0.5, 40.0)
    assert short.weight.grad.item() == 0.5
    assert long.weight.grad.item() == pytest.approx(2.0, rel=1e-5)
    assert clipped(long, 0.0) == pytest.approx(2.0, rel=1e-5)
    long.weight.grad.fill_(torch.nan)
    assert not clipped(long, 0.0) < float("inf")


@pytest.fixture
def toml(tmp_path: Path, write_own: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    return write_own(tmp_path / "mine")


def begun(folder: Path, toml: Path, networks: int, self_training: int = 1, **cbp: float) -> Trainer:
    config = from_table(
        {
            "schedule": {"warmup_epochs": 2, "f_epochs": 1, "self_training": self_training},
            "batch": {"size": 3, "snippets": 32},
            "cbp": {"networks": networks, "dim": 8, "heads": 2, **cbp},
        },
        load_recipe("own").config,
        "here",
    )
    run = Run.open(folder) if folder.exists() else Run.create(folder, Setup(dataset=str(toml)), config, {}, {})
    return prepare(run, CPU, Reporter(Console(quiet=True), True, run.log))


def test_each_network_learns_in_an_order_of_its_own(
    tmp_path: Path, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of the branch becomes what it becomes alone, with the same first weights and the same order."""
    still = {"dropout": 0.0, "input_dropout": 0.0, "output_dropout": 0.0}
    together = begun(tmp_path / "together", toml, 3, self_training=0, **still)
    networks = together.branches.networks("cbp")
    starts = [copy.deepcopy(network.state_dict()) for network in networks]
    together.fit()
    order_of = TrainingBatches._order
    for order, (start, network) in enumerate(zip(starts, networks, strict=True)):
        monkeypatch.setattr(
            TrainingBatches, "_order", lambda self, number, _, order=order: order_of(self, number, order)
        )
        alone = begun(tmp_path / f"alone{order}", toml, 1, self_training=0, **still)
        alone.branches["cbp"].load_state_dict(start)
        alone.fit()
        assert not torch.equal(start["embedding.weight"], network.state_dict()["embedding.weight"])
        torch.testing.assert_close(alone.branches["cbp"].state_dict(), network.state_dict())


def test_from_training_to_prediction(tmp_path: Path, toml: Path) -> None:
    rows = begun(tmp_path / "run", toml, 3).fit()
    assert [row["branch"] for row in rows] == ["cbp", "control", "cbp"]
    found = open_run(tmp_path / "run", "cpu")
    assert isinstance(found.branches["cbp"], CBPEnsemble)
    listed = detect_test_videos(found, None)
    assert wtal.evaluate(listed, found.data.subset("test")).mean == pytest.approx(rows[-1]["mean"])
    model = wtal.load(tmp_path / "run", "cpu")
    one = next(iter(listed))
    assert model.detect(toml.with_name("i3d") / f"{one}.npy") == listed[one] != []


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_is_cut_off_resumes_to_the_same_bits(tmp_path: Path, toml: Path, epochs: int) -> None:
    begun(tmp_path / "whole", toml, 2).fit()
    done = 0

    class CutError(Exception):
        pass

    def cut(self: Trainer, *rest: object) -> None:
        nonlocal done
        real(self, *rest)
        done += 1
        if done == epochs:
            raise CutError

    real = Trainer.log_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "log_epoch", cut)
        with pytest.raises(CutError):
            begun(tmp_path / "cut", toml, 2).fit()
    begun(tmp_path / "cut", toml, 2).fit()
    whole, again = (
        load_checkpoint(Run.open(tmp_path / name).checkpoints.newest()).tensors for name in ("whole", "cut")
    )
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_training_limits_the_memory_of_onednn(tmp_path: Path, toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    begun(tmp_path / "run", toml, 2)
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "16"


def test_another_number_of_networks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    path.write_text('extends = "own"\n[cbp]\nnetworks = 0\n')
    with pytest.raises(WtalError, match=r"cbp.networks is 0, expected a number from 1 on"):
        load_recipe(path)
