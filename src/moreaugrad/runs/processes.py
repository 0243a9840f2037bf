"""The processes of a run: one alone, or those that `torchrun` started."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from operator import add
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long a process waits for the others; one that dies is noticed at once by gloo."""


@contextmanager
def connected(*, computing: bool = False) -> Iterator[None]:
    """Errors: ConnectionError where another process has died.

    computing: something is computed as well, whose own errors stay as they are.
    """
    try:
        yield
    except RuntimeError as error:
        if computing and not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise ConnectionError(
            "another process of this run has stopped; what is finished stays, and the same command "
            f"resumes from there ({' '.join(str(error).split())[:200]})"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Processes:
    """rank: this process, from 0. size: all of them. local_rank: among those of this machine.
    shard: `i, n` of a process without connection that does the units i, i + n, ... alone. follows:
    whether another process, without connection, reports to the user.

    Whatever waits for the others raises ConnectionError where one has died.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    shard: tuple[int, int] | None = None
    follows: bool = False

    @property
    def leads(self) -> bool:
        """Whether this one reports to the user."""
        return self.rank == 0 and not self.follows

    def own(self, device: str) -> str:
        """This process's device: of several GPUs that of its local rank; processes beyond their
        number share them."""
        if device != "cuda" or not self.local_rank:
            return device
        place = self.local_rank % max(1, torch.cuda.device_count())
        return f"{device}:{place}" if place else device

    def alone(self) -> Processes:
        """This process by itself, on its own GPU."""
        return Processes(local_rank=self.local_rank)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's items: a range of them, as long as the others' but for one; or those of
        its shard."""
        if self.shard is not None:
            return items[self.shard[0] :: self.shard[1]]
        count, size = len(items), self.size
        return items[count * self.rank // size : count * (self.rank + 1) // size]

    def first(self, act: Callable[[], None]) -> None:
        """Process 0 does it while the others wait. Errors: ValueError in all of them."""
        problem: str | None = None
        if self.rank == 0:
            try:
                act()
            except ValueError as error:
                if self.size == 1:
                    raise
                problem = str(error)
        problem = self.from_first(problem)
        if problem is not None:
            raise ValueError(problem)

    @connected()
    def from_first(self, value: T | None) -> T:
        """Process 0's value, in all of them."""
        found: list[Any] = [value]
        if self.size > 1:
            dist.broadcast_object_list(found)
        result: T = found[0]
        return result

    @connected()
    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        found = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found

    def total(self, parts: Sequence[Tensor], *, ordered: bool = True) -> Tensor:
        """The sum of all parts of all processes, in order of rank: no bit of it depends on how
        many processes hold them. Each adds its own to what the process before it has sent.

        ordered: False lets all add at once, which takes fewer messages and rounds differently.
        """
        if self.size == 1:
            return reduce(add, parts)
        own = [part.cpu() for part in parts]
        with connected():
            if not ordered:
                total = reduce(add, own).clone()
                dist.all_reduce(total)
                return total.to(parts[0].device)
            if self.rank:
                before = torch.empty_like(own[0])
                dist.recv(before, self.rank - 1)
                own = [before, *own]
            total = reduce(add, own)
            if self.rank < self.size - 1:
                dist.send(total, self.rank + 1)
            dist.broadcast(total, self.size - 1)
        return total.to(parts[0].device)

    @connected()
    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def processes(shard: str | None = None) -> Iterator[Processes]:
    """By the environment that `torchrun` sets, or else Slurm's `srun`, which may have started it.
    shard: `I/N`. Errors: ValueError for an environment that is not whole or contradicts itself, and
    for another shard."""
    size = _set("WORLD_SIZE", 1, least=1)
    if size == 1:
        part = None if shard is None else _shard(shard)
        task, local = _tasks()
        yield Processes(local_rank=local, shard=part, follows=task > 0)
        return
    if shard is not None:
        raise ValueError(
            f"--shard {shard}: torchrun's processes share the work themselves (WORLD_SIZE is "
            f"{size}): leave out --shard, or start without torchrun"
        )
    rank, local = _set("RANK", 0), _set("LOCAL_RANK", 0)
    needed = {name: os.environ.get(name, "") for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")}
    if rank >= size or not all(needed.values()):
        given = ", ".join(f"{name}={value}" for name, value in needed.items() if value)
        raise ValueError(
            f"WORLD_SIZE is {size}: expected RANK, which is smaller, MASTER_ADDR and MASTER_PORT "
            f"with it, as torchrun sets them, got {given or 'none'}; start with torchrun, or "
            "without WORLD_SIZE"
        )
    # Collectives on the CPU: what is exchanged is a word or two.
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Processes(rank=rank, size=size, local_rank=local)
    finally:
        dist.destroy_process_group()


def _set(name: str, default: int, least: int = 0) -> int:
    """A variable that torchrun sets; where it is missing or empty, the default."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"{name}: expected a number from {least}, as torchrun sets it, got {text!r}; start "
            f"with torchrun, or without {name}"
        )
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise ValueError(
            f"--shard: expected I/N, the shard from 0 to N - 1 and how many there are, such as "
            f"0/4; got {text!r}"
        )
    return int(found[1]), int(found[2])


def _tasks() -> tuple[int, int]:
    """This process among those of `srun`, and among those of this machine."""
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    task, count, local = (os.environ.get(name) for name in names)
    given = [f"{n}={v}" for n, v in zip(names, (task, count, local), strict=True) if v is not None]
    numbers = [value or "0" for value in (task, count, local)]
    if not all(value.isdecimal() for value in numbers) or (
        None not in (task, count) and int(numbers[0]) >= int(numbers[1])
    ):
        raise ValueError(
            f"{', '.join(given)}: expected numbers from 0, SLURM_PROCID smaller than SLURM_NTASKS, "
            "as srun sets them; unset them to run outside of Slurm"
        )
    return int(numbers[0]), int(numbers[2])
