"""Batch normalisation folded into the preceding convolution, which saves passes over memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from moreaugrad.score.forward import forward

KINDS = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))


def fold_batchnorm(module: nn.Module, example: Tensor | None = None) -> nn.Module:
    """A copy of a model in evaluation mode that computes the same function with fewer layers.

    Each convolution whose output only one batch normalisation uses takes over its scale and shift;
    the normalisation becomes an identity, so the names of layers and their hooks stay.

    example: a batch of inputs on which the copy's output is compared.
    Returns the given module itself if nothing can be folded, if it cannot be traced or copied, or
    if the outputs differ by more than rounding.

    >>> module = mg.models.fold_batchnorm(torch.nn.Conv2d(3, 8, 3).eval())
    """
    pairs = list(_pairs(module))
    if not pairs:
        return module
    try:
        folded = copy.deepcopy(module)
    except Exception:  # any error that a part of the module raises when it is copied
        return module
    for conv, norm in pairs:
        layers = folded.get_submodule(conv), folded.get_submodule(norm)
        folded.set_submodule(conv, fuse_conv_bn_eval(*layers))  # type: ignore[type-var, arg-type]
        folded.set_submodule(norm, nn.Identity())
    if example is not None and not _agree(module, folded, example):
        return module
    return folded


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions and normalisations that nothing else in the graph uses."""
    try:
        graph = fx.Tracer().trace(module)
    except Exception:  # any error that a model's code raises when it is traced
        return
    named = dict(module.named_modules())
    calls = Counter(id(named[str(n.target)]) for n in graph.nodes if n.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        conv, norm = named[str(before.target)], named[str(node.target)]
        alone = len(before.users) == 1 and calls[id(conv)] == calls[id(norm)] == 1
        direct = not read & {str(before.target), str(node.target)}
        if alone and direct and _fits(conv, norm) and not _hooked(conv, norm):
            yield str(before.target), str(node.target)


def _fits(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        (type(conv), type(norm)) in KINDS
        and not (conv.training or norm.training)
        and norm.running_mean is not None
    )


def _hooked(*modules: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)


@torch.no_grad()
def _agree(module: nn.Module, folded: nn.Module, example: Tensor) -> bool:
    before, after = forward(module, example), forward(folded, example)
    scale = before.abs().max()
    rounding = torch.finfo(before.dtype).eps * 1e3
    return bool((after - before).abs().max() <= rounding * scale)
