"""Shards: several processes share one list of videos, each takes its own part without communication."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from wtal.errors import WtalError

Item = TypeVar("Item")

_LONGEST_WAIT = timedelta(days=30)


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 0) of ``count`` parts; ``launched``: torchrun started this process."""

    index: int = 0
    count: int = 1
    launched: bool = False

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items of this part: every ``count``-th item, so that each part has long and short videos."""
        return list(items[self.index :: self.count])

    @property
    def local_rank(self) -> int:
        """The number of this process on its machine, from 0. It decides which GPU the process uses."""
        return int(os.environ.get("LOCAL_RANK", 0)) if self.launched else 0

    @property
    def local_count(self) -> int:
        """The number of processes on this machine, which share its CPUs."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if self.launched else 1


def this_shard(option: str | None) -> Shard:
    """The shard of this process.

    Args:
        option: the value of ``--shard``, "i/n" with i from 1. None: torchrun's environment variables decide; without
            them the shard is the whole list.

    Raises:
        WtalError: the option is malformed, or torchrun's environment variables are incomplete or invalid.
    """
    if option is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", option)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise WtalError(f"--shard {option}: expected i/n with i from 1 to n, e.g. 1/4 to 4/4")
        return Shard(int(match[1]) - 1, int(match[2]))
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _launched()
    return Shard()


def _launched() -> Shard:
    given = f"RANK={os.environ['RANK']} WORLD_SIZE={os.environ['WORLD_SIZE']}"
    try:
        shard = Shard(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), launched=True)
        whole = 0 <= shard.index < shard.count and shard.local_rank >= 0 and shard.local_count >= 1
    except ValueError:
        whole = False
    if not whole:
        raise WtalError(f"{given} in the environment: expected what torchrun sets there, or --shard i/n")
    if shard.count > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise WtalError(
            f"{given} in the environment without MASTER_ADDR and MASTER_PORT: expected torchrun, or --shard i/n"
        )
    return shard


def wait_for_other_shards(shard: Shard) -> None:
    """Under torchrun, wait until every process is done.

    A failed process does not block the others: torchrun ends all processes when one fails.
    """
    if shard.launched and shard.count > 1:
        import torch.distributed as dist

        dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
        dist.barrier()
        dist.destroy_process_group()
