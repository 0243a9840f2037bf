"""Gradients averaged over processes by torch, where bytes need not be those of one process."""

from __future__ import annotations

import copy
import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.random import fork_rng

from moreaugrad.runs.processes import Processes, connected
from moreaugrad.score.checks import detached
from moreaugrad.score.forward import forward


def averaged(module: nn.Module, x: Tensor, processes: Processes) -> DistributedDataParallel:
    """The module, in whose backward passes gradients become their mean over the processes.

    x: some inputs `[B, ...]`. Weights that the output does not depend on (of auxiliary classifiers)
    are frozen: they never have a gradient, for which the other processes would wait. Buffers stay
    each process's own.
    """
    for weight in _unused(module, x):
        weight.requires_grad_(False)
    # About axes of length one of 1 x 1 convolutions, whose strides mean nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    with connected():
        group = dist.new_group(backend="nccl") if _own_gpus(x.device, processes) else None
        found = DistributedDataParallel(module, process_group=group)
    # An attribute: the argument of this name is deprecated, and older torch has no other.
    found.broadcast_buffers = False
    return found


def _unused(module: nn.Module, x: Tensor) -> list[nn.Parameter]:
    """The weights that the output in training mode does not depend on."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    trial = copy.deepcopy(module).train()  # whose buffers may change
    with fork_rng(devices=[x.device] if x.device.type == "cuda" else []), torch.enable_grad():
        output = forward(trial, x)
    if not output.requires_grad:
        raise detached()
    learnt = [weight for weight in trial.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(output.sum(), learnt, allow_unused=True)
    return [w for w, gradient in zip(weights, gradients, strict=True) if gradient is None]


def _own_gpus(device: torch.device, processes: Processes) -> bool:
    """Whether each process has a GPU of its own, which NCCL needs."""
    uuid = None
    if device.type == "cuda" and dist.is_nccl_available():
        uuid = str(torch.cuda.get_device_properties(device).uuid)
    found = processes.gather(uuid)
    return None not in found and len(set(found)) == len(found)
