"""Gradients averaged over processes by torch, where bytes need not be those of one process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.random import fork_rng

from moreaugrad.runs.processes import PATIENCE, Processes, connected
from moreaugrad.score.checks import detached
from moreaugrad.score.forward import forward


def averaged(
    module: nn.Module, x: Tensor, processes: Processes, seed: int
) -> tuple[DistributedDataParallel, list[str]]:
    """The module wrapped so that backward passes average gradients over the processes, and the
    names of weights that are frozen.

    x: some inputs `[B, ...]`. Weights that the output does not depend on (of auxiliary classifiers)
    are frozen: they never have a gradient, for which the other processes would wait. Buffers stay
    each process's own. seed: of dropout in the pass that shows which. Errors: ValueError where the
    processes do not use the same weights.
    """
    unused = _unused(module, x, seed)
    if any(names != unused for names in processes.gather(unused)):
        raise ValueError(
            "ddp: expected a network that uses the same weights in all processes, got one that "
            "chooses them at random or by its input: train without --ddp"
        )
    for name in unused:
        module.get_parameter(name).requires_grad_(False)
    own = _own_gpus(x.device, processes)
    with connected(computing=True):
        group = dist.new_group(backend="nccl", timeout=PATIENCE) if own else None
        found = DistributedDataParallel(module, process_group=group)
    # An attribute: the argument of this name is deprecated, and older torch has no other.
    found.broadcast_buffers = False
    return found, unused


@contextmanager
def averaging() -> Iterator[None]:
    """Around backward passes. Errors: ConnectionError where another process has died."""
    with warnings.catch_warnings(), connected(computing=True):
        # About axes of length one of 1 x 1 convolutions, whose strides mean nothing.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        yield


def _unused(module: nn.Module, x: Tensor, seed: int) -> list[str]:
    """The weights that the output in training mode does not depend on."""
    learnt = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    devices = [x.device] if x.device.type == "cuda" else []
    try:
        with fork_rng(devices=devices), torch.enable_grad():
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device.index or 0].manual_seed(seed)
            output = forward(module.train(), x)
        if not output.requires_grad:
            raise detached()
        gradients = torch.autograd.grad(output.sum(), list(learnt.values()), allow_unused=True)
    finally:
        for part, training in modes:
            part.training = training
        for buffer, before in buffers:
            buffer.detach().copy_(before)
    return [n for n, gradient in zip(learnt, gradients, strict=True) if gradient is None]


def _own_gpus(device: torch.device, processes: Processes) -> bool:
    """Whether each process has a GPU of its own, which NCCL needs."""
    uuid = None
    if device.type == "cuda" and dist.is_nccl_available():
        uuid = str(torch.cuda.get_device_properties(device).uuid)
    found = processes.gather(uuid)
    return None not in found and len(set(found)) == len(found)
