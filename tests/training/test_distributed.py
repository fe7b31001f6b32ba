"""Training by two processes is training by one: same losses, rows and files; they begin, stop and fail together."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked.commands import Commands
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.batches import Batch
from wtal.errors import WtalError
from wtal.inference.branches import Branches
from wtal.models.cbp import CBP
from wtal.platform.device import Device, choose_device
from wtal.platform.distributed import SINGLE_PROCESS, ProcessError, Processes
from wtal.runs.checkpoint import load_checkpoint
from wtal.settings.config import CBPConfig, LossConfig, RunConfig
from wtal.training.gradients import add_gradients
from wtal.training.pseudo_labels import PseudoLabels
from wtal.training.rank_labels import PseudoLabelQuality

WORKER = Path(__file__).with_name("torchrun_worker.py")
VIDEOS, TRAINING, BATCH = 9, 7, 3  # batches of 3, 3 and 1: the second process has no video of the last
STEPS = 3
SETTINGS = {
    "threads": 1,
    "keep-checkpoints": 99,
    "batch.size": BATCH,
    "batch.snippets": 32,
    "cbp.dim": 16,
    "cbp.heads": 2,
    "cbp.levels": 2,
    "cbp.dropout": 0.0,
    "cbp.input-dropout": 0.0,
    "cbp.output-dropout": 0.0,
    "vlp.heads": 2,
    "vlp.blocks": 1,
    "vlp.dropout": 0.0,
    "optimizer.clip-norm": 1.0,
    "optimizer.ema": 0.5,
    "schedule.warmup-epochs": 0,
    "schedule.b-epochs": 2,
    "schedule.f-epochs": 2,
}


def write_data(folder: Path) -> Path:
    random = np.random.default_rng(3)
    labels, segments, names = ["video,label"], ["video,start,end,label"], [f"v{n}" for n in range(VIDEOS)]
    for kind in ("i3d", "clip"):
        (folder / kind).mkdir(parents=True)
    for number, name in enumerate(names):
        label = "AB"[number % 2]
        labels.append(f"{name},{label}")
        segments.append(f"{name},3.2,9.6,{label}")
        for kind, width in (("i3d", 24), ("clip", 16)):
            features = random.standard_normal((25 + 5 * number, width), dtype=np.float32)
            features[5:15, number % 2] += 3
            np.save(folder / kind / f"{name}.npy", features)
    np.save(folder / "text.npy", np.eye(2, 16, dtype=np.float32))
    (folder / "labels.csv").write_text("\n".join(labels))
    (folder / "segments.csv").write_text("\n".join(segments))
    path = folder / "dataset.toml"
    path.write_text(
        f'name = "two"\nclasses = ["A", "B"]\ni3d = "i3d"\nclip = "clip"\nlabels = "labels.csv"\n'
        f'segments = "segments.csv"\ntext_features = "text.npy"\nfps = 25\ntest = {json.dumps(names[TRAINING:])}\n'
    )
    return path


@dataclass(frozen=True)
class Ended:
    code: int
    text: str
    seconds: float
    notes: list[dict[str, Any]]


class Job:
    """One data set, and how to train on it in one process or two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toml = write_data(folder / "data")
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "WTAL_CACHE": str(folder / "cache"), "COLUMNS": "300"}
        self.environment["MASTER_ADDR"] = "127.0.0.1"

    def new(self, out: Path) -> list[str]:
        options = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
        return ["--dataset", str(self.toml), "--out", str(out), "--schedule.control", *options]

    def together(self, notes: Path, *arguments: object, **drill: object) -> Ended:
        notes.mkdir()
        launch = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        began = time.monotonic()
        done = subprocess.run(
            [*launch, str(WORKER), *map(str, arguments)],
            env={**self.environment, "DRILL": json.dumps({"folder": str(notes), **drill})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        found = [json.loads(path.read_text()) for path in sorted(notes.iterdir())]
        return Ended(done.returncode, done.stdout, time.monotonic() - began, found)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("distributed"))


@pytest.fixture(scope="module")
def one(job: Job, commands: Commands) -> Path:
    """The run folder of one process."""
    done = commands("train", *job.new(job.folder / "one"), environment={"COLUMNS": job.environment["COLUMNS"]})
    assert done.returncode == 0, done.stderr
    return job.folder / "one"


@pytest.fixture(scope="module")
def two(job: Job) -> tuple[Path, Ended]:
    """The run folder of two processes, and how they ended."""
    ended = job.together(job.folder / "notes", *job.new(job.folder / "two"))
    assert ended.code == 0, ended.text
    return job.folder / "two", ended


def losses(run: Path) -> list[float]:
    lines = [line for line in (run / "log.txt").read_text().splitlines() if " epoch " in line]
    return [float(value) for line in lines for value in re.findall(r"[a-z]+ (\d+\.\d+)", line)]


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").iterdir())


def test_losses_and_numbers_are_those_of_one_process(one: Path, two: tuple[Path, Ended]) -> None:
    assert len(losses(one)) == 2 * 6 + 2 * 5 + 2 * 8  # control, B, F: two epochs each
    assert losses(two[0]) == pytest.approx(losses(one), rel=1e-3, abs=2e-4)
    rows = [json.loads((run / "metrics.json").read_text())["rows"] for run in (one, two[0])]
    assert [row["name"] for row in rows[0]] == [row["name"] for row in rows[1]]
    # Untrained branches: what two processes find is what one finds, to the last bit.
    assert rows[0][:2] == rows[1][:2]
    for name in ("cbp-after-warm-up.json", "vlp-zero-shot.json"):
        assert (one / "predictions" / name).read_bytes() == (two[0] / "predictions" / name).read_bytes()
    # Trained ones: Adam divides by the gradient's size, so rounding shows where a gradient is nearly nothing.
    for left, right in zip(*rows, strict=True):
        assert left["mean"] == pytest.approx(right["mean"], abs=3)
        assert left["snippets"] == pytest.approx(right["snippets"], abs=0.05)
    tensors = [load_checkpoint(checkpoints(run)[-1]).tensors for run in (one, two[0])]
    assert tensors[0].keys() == tensors[1].keys()
    for name, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], value, rtol=1e-2, atol=2e-3)


def test_pseudo_labels_are_those_of_one_process(one: Path, two: tuple[Path, Ended]) -> None:
    first: list[dict[str, torch.Tensor]] = []
    for run in (one, two[0]):
        found = (load_checkpoint(path).part("pseudo_labels") for path in checkpoints(run))
        first.append(next(pseudo_labels for pseudo_labels in found if pseudo_labels))  # of the untrained CBP
    assert first[0].keys() == first[1].keys()
    assert all(torch.equal(first[0][name], first[1][name]) for name in first[0])


def test_every_process_has_its_share_and_the_first_alone_writes(two: tuple[Path, Ended]) -> None:
    run, ended = two
    first, second = ended.notes
    assert first["weights"] == second["weights"] is not None
    epochs = 2 + 2 + 2
    assert first["shares"] == [2, 2, 1] * epochs
    assert second["shares"] == [1, 1, 0] * epochs
    assert first["random"] != second["random"]  # or both would drop the same
    assert any(str(run) in path for path in first["written"])
    assert [path for path in second["written"] if str(run.parent) in path] == []
    log = (run / "log.txt").read_text()
    assert "2 processes" in log
    assert log.count("control epoch 1/2") == ended.text.count("CBP after warm-up: ") == 1
    assert len(re.findall(r"\d\.\d% of the time waiting for data", log)) == epochs
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert "processes = 2" in (run / "config.toml").read_text()


def test_an_interrupt_saves_once_and_the_run_goes_on_to_the_same_bits(
    job: Job, two: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    stopped = job.together(tmp_path / "a", *job.new(folder), step=2 * STEPS + 2, rank=1, does="interrupt")
    assert stopped.code != 0
    newest = checkpoints(folder)[-1]
    again = f"torchrun --nproc-per-node 2 -m wtal.cli.train --resume {folder}"
    assert stopped.text.count(f"saved all that was trained in {newest}; go on with: {again}\n") == 1
    saved = load_checkpoint(newest)
    assert (saved.facts["epoch"], saved.facts["batch"]) == (0, 2)  # in the middle of the first B epoch
    resumed = job.together(tmp_path / "b", "--resume", folder)
    assert resumed.code == 0, resumed.text
    for name, notes in zip(("random.cpu", "random.1.cpu"), resumed.notes, strict=True):
        assert notes["random"] == hashlib.sha256(saved.tensors[name].numpy().tobytes()).hexdigest()
    whole, again = (load_checkpoint(checkpoints(run)[-1]).tensors for run in (two[0], folder))
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
    assert (two[0] / "metrics.json").read_text() == (folder / "metrics.json").read_text()


def test_a_process_that_fails_ends_them_all(tmp_path: Path) -> None:
    job = Job(tmp_path)
    ended = job.together(tmp_path / "notes", *job.new(tmp_path / "run"), step=2, rank=0, does="damage")
    assert ended.code != 0
    assert ended.seconds < 60
    told = [line for line in ended.text.splitlines() if line.startswith("wtal-train: error: ")]
    assert [line for line in told if "v0.npy" in line] == [line for line in told if "another process" not in line]
    assert len(told) <= 2
    assert any("v0.npy" in line for line in told)
    assert "exitcode  : 2" in ended.text


def branch_and_batch(lengths: list[int], seed: int) -> tuple[Branches, Batch, PseudoLabels]:
    torch.manual_seed(seed)
    config = CBPConfig(dim=8, heads=2, levels=2, dropout=0.0, input_dropout=0.0)
    branches = Branches({"cbp": CBP(6, 3, config).double().train()}, {})
    count = len(lengths)
    batch = Batch(
        torch.randn(count, max(lengths), 6, dtype=torch.float64),
        None,
        torch.tensor(lengths),
        (torch.rand(count, 3) < 0.5).float(),
        torch.arange(count),
        torch.zeros(count, dtype=torch.int64),
    )
    targets = [torch.randint(-1, 2, (length, 3), dtype=torch.int8) for length in lengths]
    return branches, batch, PseudoLabels(targets, None, PseudoLabelQuality())


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=7),
    micro=st.integers(1, 8),
    size=st.integers(1, 4),
    taught=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_parts_of_a_batch_have_the_gradients_of_the_whole(
    lengths: list[int], micro: int, size: int, taught: bool, seed: int
) -> None:
    branches, batch, pseudo_labels = branch_and_batch(lengths, seed)
    cpu = Device(torch.device("cpu"))
    config = RunConfig(loss=LossConfig(topk_divisor=2))
    parted = dataclasses.replace(config, batch=dataclasses.replace(config.batch, micro=micro))

    def found(shares: list[Batch], config: RunConfig) -> tuple[dict[str, float], list[torch.Tensor | None]]:
        branches.zero_grad()
        terms: dict[str, float] = {}
        for share in shares:  # one after another, where processes would sum
            own = add_gradients(branches, "cbp", share, pseudo_labels if taught else None, config, cpu, SINGLE_PROCESS)
            terms = {name: terms.get(name, 0.0) + value for name, value in own.items()}
        return terms, [None if p.grad is None else p.grad.clone() for p in branches.parameters()]

    def share(rank: int) -> Batch:
        part = Processes(rank, size).part
        parts = {name: value[part] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
        return dataclasses.replace(batch, **parts, whole=len(lengths))

    whole, gradients = found([batch], config)
    terms, sums = found([share(rank) for rank in range(size)], parted)
    assert set(terms) == set(whole) == {"loss", "video", *(("foreground", "background", "absent") if taught else ())}
    assert terms == pytest.approx(whole, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(sums, gradients, rtol=1e-5, atol=1e-7)


def test_what_no_process_has_a_gradient_for_has_none_after_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(flat: torch.Tensor) -> None:  # the other process has a gradient for the second of three
        flat += torch.tensor([0.0, 1, 0, *[0] * 4, 5, 6, 7, 8, 0])

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    shapes = ((2, 2), (2,), (2, 2), (1,))  # the second is frozen
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    parameters[1].requires_grad_(False)
    parameters[0].grad = torch.tensor([[1.0, 2], [3, 4]])
    Processes(0, 2).sum_gradients(parameters)
    assert parameters[0].grad.tolist() == [[1, 2], [3, 4]]
    assert parameters[1].grad is None
    assert parameters[2].grad.tolist() == [[5, 6], [7, 8]]
    assert parameters[3].grad is None


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    assert choose_device("auto", "auto", Processes(5, 8, 1).gpu) == Device(torch.device("cuda", 1), bf16=True)
    assert chosen == [torch.device("cuda", 1)]
    assert choose_device("cuda:1", "float32", SINGLE_PROCESS.gpu).name == torch.device("cuda", 1)
    assert choose_device("cpu", "auto", 1).name == torch.device("cpu")
    with pytest.raises(WtalError, match="cuda:1: several processes take a GPU each"):
        choose_device("cuda:1", "auto", 0)
    with pytest.raises(WtalError, match="there are 2 CUDA devices, one a process"):
        choose_device("cuda", "auto", 2)


def test_a_process_that_is_gone_is_told_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise RuntimeError("[/w/gloo/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:9. This is typical\nof it")

    monkeypatch.setattr("torch.distributed.all_reduce", gone)
    told = r"another process of this run ended or does not answer \(Connection closed by peer \[127.0.0.1\]:9\)"
    with pytest.raises(ProcessError, match=told):
        Processes(0, 2).any(True)


def test_how_all_processes_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SINGLE_PROCESS.launcher is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert Processes(0, 4).launcher == "torchrun --nproc-per-node 4 -m wtal.cli.train"
    assert Processes(0, 8).launcher == "torchrun --nnodes 2 ... --nproc-per-node 4 -m wtal.cli.train"


def test_a_batch_in_one_go_is_the_batch() -> None:
    _, batch, _ = branch_and_batch([3, 1, 4], 0)
    (same,) = batch.parts(0)
    assert same.i3d.data_ptr() == batch.i3d.data_ptr()
    assert [len(part.lengths) for part in batch.parts(2)] == [2, 1]
    assert {part.videos for part in batch.parts(2)} == {3}
