"""Several processes that train one run together: torchrun starts them, and torch.distributed connects them.

Every process has the whole model. It computes its share of each batch and of the videos to score, and the results are
summed or gathered. All processes make the same decisions. Only the first process (rank 0) writes files.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wtal.errors import WtalError

T = TypeVar("T")

ANSWER = timedelta(minutes=10)
"""The longest wait for a process during training. A process that ends closes its connections, which is seen at once."""
WORK = timedelta(days=1)
"""The longest wait for work that one process does for all, such as preparing data."""


class ProcessError(WtalError):
    """Another process of the run has ended or does not answer."""


@dataclass(frozen=True)
class Processes:
    """This process and its connection to the others of a run. By default there is only one process.

    All processes must call the same methods in the same order.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes.
        local_rank: the number of this process on its machine.
        store: a key-value store that all can use, also after one of them has ended.
        patient: the process group whose timeout is :data:`WORK`.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any = None
    patient: Any = None

    @property
    def gpu(self) -> int | None:
        """The index of the GPU of this process on its machine; None: there is only one process, which may choose."""
        return None if self.size == 1 else self.local_rank

    @property
    def part(self) -> slice:
        """This process's share of a sequence: every ``size``-th item, from item ``rank``."""
        return slice(self.rank, None, self.size)

    @property
    def launcher(self) -> str | None:
        """The command that started the processes, for messages; None if there is only one process."""
        if self.size == 1:
            return None
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        machines = "" if here == self.size else f"--nnodes {self.size // here} ... "
        return f"torchrun {machines}--nproc-per-node {here} -m wtal.cli.train"

    def add(self, values: Sequence[float]) -> list[float]:
        """The sums of ``values`` over the processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with _answering():
            dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        return self.add([flag])[0] > 0

    def gather(self, item: T, everywhere: bool = True) -> list[T]:
        """The items of all processes, by rank. Without ``everywhere`` only rank 0 gets them; others get nothing."""
        if self.size == 1:
            return [item]
        gathered: list[Any] = [None] * self.size if everywhere or self.rank == 0 else []
        with _answering():
            if everywhere:
                dist.all_gather_object(gathered, item, group=self.patient)
            else:
                dist.gather_object(item, gathered or None, dst=0, group=self.patient)
        return gathered

    def from_rank_zero(self, make: Callable[[], T]) -> T:
        """Call ``make()`` on rank 0 only, and return its result in all processes."""
        if self.size == 1:
            return make()
        made: list[Any] = [make() if self.rank == 0 else None]
        with _answering():
            dist.broadcast_object_list(made, src=0, group=self.patient)
        return made[0]

    def once_per_machine(self, make: Callable[[], T]) -> T:
        """Call ``make()`` first in one process of each machine, then in the others, which find its files."""
        if self.size == 1:
            return make()
        made = [make()] if self.local_rank == 0 else []
        with _answering():
            dist.barrier(group=self.patient)
        return made[0] if made else make()

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace the values of the tensors by those of rank 0."""
        if self.size == 1:
            return
        for tensor in tensors:
            value = tensor.detach().cpu().contiguous()
            with _answering():
                dist.broadcast(value, src=0, group=self.patient)
            tensor.copy_(value)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes. It stays None if no process has one."""
        if self.size == 1:
            return
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        has = torch.tensor([p.grad is not None for p in learned], dtype=learned[0].dtype, device=learned[0].device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
        flat = torch.cat([has, *(part.reshape(-1) for part in parts)])
        with _answering():
            dist.all_reduce(flat)
        sums = flat[len(learned) :].split([p.numel() for p in learned])
        for parameter, count, total in zip(learned, flat[: len(learned)].tolist(), sums, strict=True):
            parameter.grad = total.view_as(parameter) if count else None

    def speaks_first(self, message: str) -> bool:
        """Whether this process should print a message that others may have too: True for the first one that asks."""
        if self.size == 1:
            return True
        try:
            key = hashlib.sha256(message.encode("utf-8", "backslashreplace")).hexdigest()
            return bool(self.store.add(f"wtal/said/{key}", 1) == 1)
        except RuntimeError:  # the store is gone; it is better to print twice than not at all
            return True


SINGLE_PROCESS = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Connect to the other processes if torchrun started this one, and disconnect at the end.

    If several processes have the same error, only one of them prints it. Rank 0 prints an interruption. The others end
    without a message, with the same exit code.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    processes = _join()
    try:
        yield processes
    except KeyboardInterrupt:
        if processes.rank:
            raise SystemExit(130) from None
        raise
    except ProcessError as error:
        if processes.rank:
            raise SystemExit(error.exit_code) from None
        raise
    except WtalError as error:
        if not processes.speaks_first(str(error)):
            raise SystemExit(error.exit_code) from None
        raise
    # Not after an error: this would wait for a process that has ended.
    dist.destroy_process_group()


def _join() -> Processes:
    local = int(os.environ.get("LOCAL_RANK", 0))
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=ANSWER))
        backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() and torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=dist.PrefixStore("wtal", store), rank=rank, world_size=size, timeout=ANSWER
        )
        return Processes(rank, size, local, store, dist.new_group(backend="gloo", timeout=WORK))
    except (RuntimeError, ValueError) as error:
        raise ProcessError(f"cannot join the other processes of this run: {_gist(error)}") from error


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # errors of gloo and NCCL
        raise ProcessError(f"another process of this run ended or does not answer ({_gist(error)})") from error


def _gist(error: Exception) -> str:
    """The first sentence of an error of torch.distributed, without the source location."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"^(\[[^\]]*\] )+", "", line).split(". ")[0][:160]
