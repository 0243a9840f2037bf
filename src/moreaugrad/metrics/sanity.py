"""Whether a map depends on what the network has learnt: maps of copies with randomised weights.

*Cascading* randomises block after block, from the output towards the input, and keeps those before
randomised; *independent* randomises one block at a time. A map that hardly changes shows the input,
not the model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from moreaugrad.metrics.captum import Explains, Parts, target_of
from moreaugrad.metrics.similarity import spearman, ssim
from moreaugrad.registry import choose
from moreaugrad.score.forward import call
from moreaugrad.score.hooks import Before, hooked
from moreaugrad.score.noise import Stream, generator
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import Documented

Pair = Callable[[Tensor, Tensor], Tensor]

CASCADING, INDEPENDENT = "cascading", "independent"
MODES = (CASCADING, INDEPENDENT)

SIMILARITIES: Mapping[str, Pair] = {
    "ssim": ssim,
    "spearman": spearman,
    "spearman-signed": partial(spearman, signed=True),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Randomised(metaclass=Documented, heading="Attributes"):
    """The results of `randomisation`.

    >>> found = mg.metrics.randomisation(model, mg.SimpleGradient, x, seeds=[0])
    >>> mean = mg.metrics.aggregate(found.similarity["spearman"][0, 0]).mean
    """

    mode: str
    """Which blocks are randomised together: "cascading" or "independent"."""
    blocks: tuple[str, ...]
    """Names of the modules that were randomised, in this order."""
    seeds: tuple[int, ...]
    """Random seeds of the weights."""
    similarity: Mapping[str, Tensor]
    """By name, the similarity of the maps of randomised copies to those of the model, `[seeds,
    blocks, B]`; NaN where a map is zero everywhere or not finite (`aggregate` counts these)."""


def randomisation(
    model: nn.Module,
    make: Callable[[nn.Module], Explains],
    inputs: Tensor,
    target: TargetLike = None,
    *,
    mode: str = CASCADING,
    blocks: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    similarities: Mapping[str, Pair] = SIMILARITIES,
    calibration: Tensor | None = None,
    ids: Sequence[int] | Tensor | None = None,
) -> Randomised:
    """Explains `inputs` with the model and with randomised copies of it, for the model's target.

    >>> found = mg.metrics.randomisation(model, mg.SimpleGradient, x, seeds=[0])
    >>> values = found.similarity["ssim"]

    make: returns the explainer of a model. mode: "cascading" or "independent". blocks: names of
    modules, the nearest to the output first; by default all with weights or running statistics of
    their own, in the reverse order of the forward pass; one inside another one is randomised in its
    own turn alone.
    similarities: functions of the maps of the model and of a copy. calibration: inputs from which
    the copies' batch normalisation takes its statistics; without them the statistics are 0 and 1.
    The model itself is not changed.

    Source: Adebayo et al. (2018), arXiv 1810.03292.
    Errors: ValueError for a block that is not in the model, or has no weights.
    """
    choose("mode", mode, MODES)
    if not seeds or not similarities:
        raise ValueError("seeds and similarities: expected at least one of each, got none")
    names = tuple(blocks) if blocks is not None else layers(model, inputs[:1])
    for name in names:
        _weights(model, name)
    clean = make(model).explain(inputs, target, ids=ids)
    target = target_of(clean)
    found: dict[str, list[Tensor]] = {name: [] for name in similarities}
    for seed in seeds:
        for changed in _copies(model, names, seed, mode):
            if calibration is not None:
                _calibrate(changed, calibration)
            maps = make(changed).explain(inputs, target, ids=ids).maps
            for name, similarity in similarities.items():
                found[name].append(similarity(_single(clean.maps), _single(maps)))
    shape = (len(seeds), len(names), len(inputs))
    return Randomised(
        mode=mode,
        blocks=names,
        seeds=tuple(seeds),
        similarity={name: torch.stack(values).reshape(shape) for name, values in found.items()},
    )


def layers(model: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Modules with weights or running statistics of their own, in the reverse order of their first
    calls."""
    called: dict[str, None] = {}

    def noting(name: str) -> Before:
        return lambda *_: called.setdefault(name)

    weighted = {
        module: noting(name)
        for name, module in model.named_modules()
        if _learnt(module, recurse=False)
    }
    with torch.no_grad(), hooked(weighted, {}):
        call(model, example)
    if not called:
        raise ValueError("expected a model with weights to randomise, found none in its modules")
    return tuple(reversed(called))


def redraw(module: nn.Module, seed: int, number: int, apart: Collection[nn.Module] = ()) -> None:
    """Initialises all weights of a module, but not those inside `apart`, as torch's layers do.

    Linear and convolution: uniform within 1/sqrt(fan-in). Normalisation: weight 1, bias 0, running
    mean 0 and variance 1. Embedding: standard normal. Weights of other modules: normal, with their
    present mean and standard deviation. Random numbers are a function of (seed, number); the global
    generators, which `reset_parameters` uses, are not touched.
    """
    source = torch.Generator().manual_seed(
        int(generator(seed, number, Stream.WEIGHTS, 0).integers(2**63))
    )
    kept = {part for block in apart for part in block.modules()}
    with torch.no_grad():
        for part in module.modules():
            if part in kept:
                continue
            for name, weight in part.named_parameters(recurse=False):
                if isinstance(part, NORMALISATION):
                    weight.fill_(1.0 if name == "weight" else 0.0)
                else:
                    weight.copy_(_drawn(part, weight, source))
            if isinstance(part, NORMS):
                part.reset_running_stats()


NORMS = nn.modules.batchnorm._NormBase
"""Of what may have running statistics."""
NORMALISATION = (NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def _drawn(part: nn.Module, weight: Tensor, source: torch.Generator) -> Tensor:
    """New values, computed on the CPU so that a seed gives the same weights on every device."""
    new = torch.empty(weight.shape, dtype=weight.dtype)
    if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
        bound = 1 / math.sqrt(part.weight[0].numel())
        return new.uniform_(-bound, bound, generator=source)
    if isinstance(part, nn.Embedding):
        return new.normal_(generator=source)
    spread = float(weight.std(correction=0))
    return new.normal_(generator=source) * spread + float(weight.mean())


def _copies(model: nn.Module, names: Sequence[str], seed: int, mode: str) -> Iterator[nn.Module]:
    changed = copy.deepcopy(model)
    for number, name in enumerate(names):
        if mode == INDEPENDENT:
            changed = copy.deepcopy(model)
        block = _weights(changed, name)
        inside = set(block.modules()) - {block}
        redraw(block, seed, number, inside & {_weights(changed, other) for other in names})
        yield changed


def _weights(model: nn.Module, name: str) -> nn.Module:
    known: dict[str, nn.Module] = dict(model.named_modules())
    module = known[choose("block", name, known)]
    if not _learnt(module):
        raise ValueError(f"block: expected a module with weights, but {name!r} has none")
    return module


def _learnt(module: nn.Module, recurse: bool = True) -> bool:
    """Whether a module has weights, or running statistics; recurse: those inside it count too."""
    parts = module.modules() if recurse else [module]
    statistics = any(isinstance(part, NORMS) and part.track_running_stats for part in parts)
    return statistics or next(module.parameters(recurse=recurse), None) is not None


def _calibrate(model: nn.Module, inputs: Tensor) -> None:
    """Sets the running statistics of batch normalisation to those of `inputs`."""
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [(part.training, part.momentum) for part in norms]
    for part in norms:
        part.reset_running_stats()
        part.train()
        part.momentum = None
    with torch.no_grad():
        model(inputs)
    for part, (training, momentum) in zip(norms, before, strict=True):
        part.train(training)
        part.momentum = momentum


def _single(maps: Parts) -> Tensor:
    """The maps of several inputs as one map, for similarities that compare entries."""
    if isinstance(maps, Tensor):
        return maps
    return torch.cat([part.flatten(1) for part in maps], 1)
