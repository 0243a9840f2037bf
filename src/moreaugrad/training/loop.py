"""One step of training on a batch that is split into pieces, and schedules of learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.random import fork_rng

from moreaugrad.training.inner import PerSampleLoss, cross_entropy
from moreaugrad.training.protocol import Protocol
from moreaugrad.training.rounds import Round

Total = Callable[[Sequence[Tensor]], Tensor]
"""The sum over all pieces of all processes, from the tensors of this process's pieces."""

FIGURES = ("loss", "h", "norm", "gap")
"""Of a round, `[B]` each; NaN where a protocol does not define one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Some of a batch's samples. number: which piece of the batch, from 0."""

    number: int
    x: Tensor
    y: Tensor
    ids: Tensor
    attention: Tensor | None = None


def in_order(parts: Sequence[Tensor]) -> Tensor:
    """The sum, from the first to the last."""
    return reduce(add, parts)


class Trainer:
    """Steps of one optimiser on one model.

    Each piece of a batch has its own protocol. Gradients are summed over the pieces and divided by
    the size of the batch. Buffers (the statistics of BatchNorm) are the same for all pieces before
    a round; those of a floating-point type become the mean over the pieces after it. The weights
    therefore depend on how a batch is split, but not on how many processes share its pieces.

    model: wrapped in `DistributedDataParallel`, it averages the gradients over the processes in the
    last backward pass of a round; the weights are then the same up to rounding alone.
    protocols: one for each piece of this process. pieces: how many the batch has in all processes.
    total: sums over these. seed: the random numbers of the model (dropout) are a function of (seed,
    step, piece, round); the global generators are restored. amp: type of autocast, None for none.
    freeze_statistics: layers with running statistics normalise by these, which stay as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        protocols: Sequence[Protocol],
        *,
        loss: PerSampleLoss = cross_entropy,
        seed: int = 0,
        pieces: int = 1,
        amp: torch.dtype | None = None,
        total: Total = in_order,
        freeze_statistics: bool = False,
    ) -> None:
        self.model, self.optimiser, self.protocols = model, optimiser, tuple(protocols)
        self.loss, self.seed, self.pieces, self.amp = loss, seed, pieces, amp
        self.total, self._device = total, next(model.parameters()).device
        self._ddp = model if isinstance(model, DistributedDataParallel) else None
        kind = nn.modules.batchnorm._NormBase  # what may have running statistics
        normalising = [part for part in model.modules() if isinstance(part, kind)]
        self._frozen = normalising if freeze_statistics else []
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        buffers = list(model.buffers()) if pieces > 1 else []
        self._buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._counters = [buffer for buffer in buffers if not buffer.is_floating_point()]

    def step(self, pieces: Sequence[Piece], *, count: int, step: int) -> Tensor:
        """Updates the weights once for each round of the protocol.

        pieces: those of this process. count: samples of the whole batch. step: its number, from 0.
        Returns `[2, 4]` in float64: the sum of each of `FIGURES` over all samples and rounds, and
        the number of samples for which it is defined.
        Errors: FloatingPointError where the loss or a gradient is not finite; the weights then stay
        those of the step before.
        """
        self.model.train()
        for part in self._frozen:
            part.eval()
        runs = [
            protocol.rounds(
                self.model, piece.x, piece.y,
                loss=self.loss, attention=piece.attention, ids=piece.ids,
            )
            for protocol, piece in zip(self.protocols, pieces, strict=True)
        ]  # fmt: skip
        tally = torch.zeros(2, len(FIGURES), dtype=torch.float64)
        turn = 0
        while True:
            found = self._round(runs, pieces, count, (step, turn))
            if found is None:
                return tally
            tally += found
            self.optimiser.step()
            turn += 1

    def _round(
        self,
        runs: Sequence[Iterator[Round]],
        pieces: Sequence[Piece],
        count: int,
        at: tuple[int, int],
    ) -> Tensor | None:
        """Computes the gradients of the weights; None where the protocol has no further round."""
        shared = [*self._buffers, *self._counters]
        before = [buffer.clone() for buffer in shared]
        autocast = torch.autocast(self._device.type, dtype=self.amp, enabled=self.amp is not None)
        ddp = self._ddp
        # DDP averages over the processes, which may have unequal parts of the batch.
        each = count if ddp is None else count / ddp.process_group.size()
        held: list[Tensor] = []
        tallies: list[Tensor] = []
        used: list[Tensor] = []
        for run, piece in zip(runs, pieces, strict=True):
            for buffer, value in zip(shared, before, strict=True):
                buffer.copy_(value)
            with self._apart(piece is pieces[-1]):
                # A protocol may read the last round's gradients here: they are cleared afterwards.
                with self._drawing(*at, piece.number), autocast:
                    found = next(run, None)
                if found is None:
                    continue
                if ddp is None or piece is pieces[0]:
                    self.optimiser.zero_grad()
                (found.loss.sum() / each).backward()  # type: ignore[no-untyped-call]
            tallies.append(_tally(found))
            used = [weight for weight in self._weights if weight.grad is not None]
            if self.pieces > 1:
                parts = [weight.grad for weight in used if weight.grad is not None and ddp is None]
                parts += [buffer / self.pieces for buffer in self._buffers]
                held += [torch.cat([part.detach().flatten() for part in parts])] if parts else []
        if not tallies:
            return None
        tally = self.total(tallies)
        if held:
            own = used if ddp is None else []
            lengths = [target.numel() for target in (*own, *self._buffers)]
            parts = list(torch.split(self.total(held), lengths))
            for weight, part in zip(own, parts, strict=False):
                weight.grad = part.view_as(weight)
            for buffer, part in zip(self._buffers, parts[len(own) :], strict=True):
                buffer.copy_(part.view_as(buffer))
        if not torch.isfinite(tally[0, 0]):
            raise FloatingPointError(f"the loss has become {float(tally[0, 0]):g}")
        sizes = [weight.grad.abs().sum() for weight in used if weight.grad is not None]
        if not bool(torch.isfinite(torch.stack(sizes).sum())):
            raise FloatingPointError("the gradient of the weights is no longer finite")
        return tally

    def _apart(self, last: bool) -> AbstractContextManager[None]:
        """Where a piece is not the last one of this process, nothing is averaged yet."""
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()

    @contextmanager
    def _drawing(self, *key: int) -> Iterator[None]:
        """Seeds the global generators, which dropout uses, by (seed, key), and restores them."""
        device = self._device
        with fork_rng(devices=[device] if device.type == "cuda" else []):
            words = np.random.SeedSequence([self.seed, *key]).generate_state(1, np.uint64)
            seed = int(words[0] >> np.uint64(1))
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                torch.cuda.default_generators[device.index or 0].manual_seed(seed)
            yield


def folded(module: nn.Module) -> bool:
    """Whether batch normalisation has learnt scales, but the statistics that it begins with: those
    of its network may have been folded into the weights."""
    learnt = False
    for part in module.modules():
        if not isinstance(part, nn.modules.batchnorm._BatchNorm) or part.weight is None:
            continue
        mean, variance = part.running_mean, part.running_var
        if mean is None or variance is None:
            continue
        if bool(mean.any()) or bool(((variance - 1).abs() > 1e-3).any()):
            return False
        learnt |= bool(((part.weight != 0) & (part.weight != 1)).any())
    return learnt


def _tally(found: Round) -> Tensor:
    figures = torch.stack(
        [getattr(found, name).detach().double().cpu().expand(len(found.loss)) for name in FIGURES]
    )
    defined = ~figures.isnan()
    # A loss of NaN must not be left out.
    defined[0] = True
    sums = torch.where(defined, figures, 0.0).sum(1)
    return torch.stack([sums, defined.double().sum(1)])


WARMUP, LEAST = 0.3, 1e-2
"""Of one-cycle: the fraction of steps in which the rate rises, and its first and last value."""


def constant(step: int, steps: int) -> float:
    """1."""
    return 1.0


def cosine(step: int, steps: int) -> float:
    """(1 + cos(pi t)) / 2, t = step / steps: from 1 towards 0.

    Source: Loshchilov and Hutter, SGDR, 2017 (arXiv 1608.03983), eq. 5, without restarts.
    """
    return (1 + math.cos(math.pi * step / steps)) / 2


def one_cycle(step: int, steps: int) -> float:
    """Up from 1/100 to 1 in the first 30 % of the steps and down again, each by a half cosine.

    Source: Smith and Topin, Super-Convergence, 2018 (arXiv 1708.07120).
    """
    top = WARMUP * (steps - 1)
    far = abs(step - top) / max(top if step < top else steps - 1 - top, 1e-9)
    return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * min(far, 1.0))) / 2


SCHEDULES: Mapping[str, Callable[[int, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "one-cycle": one_cycle,
}
"""Learning rates by name: (step, number of steps) to the fraction of the largest one."""
