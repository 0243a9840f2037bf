"""The base classes of training protocols: how one batch is perturbed, and what is reported."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, distributed, nn

from moreaugrad.registry import choose
from moreaugrad.score.inputs import INPUT, UNITS, InputSpace
from moreaugrad.score.noise import Noise, sample_keys
from moreaugrad.settings import Documented
from moreaugrad.training.inner import InnerProblem, PerSampleLoss, cross_entropy
from moreaugrad.training.places import Inputs, Model, Place, moved
from moreaugrad.training.rounds import Perturbation, Round


@dataclass(eq=False)
class _Tally:
    """The state of a protocol. calls: batches so far, which key the noise. checked, overshot:
    samples for which loss - h was compared with and without the perturbation, and those for which
    the perturbation lowered it. warned: whether the warning was issued."""

    calls: int = 0
    checked: int = 0
    overshot: int = 0
    warned: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Protocol(metaclass=Documented):
    """How one batch of training is perturbed. A subclass implements `_rounds`.

    >>> for r in protocol.rounds(model, x, y):
    ...     optimiser.zero_grad()
    ...     r.loss.mean().backward()
    ...     optimiser.step()
    """

    units: str = INPUT
    """Units of weights and lengths: "input" (what the network takes) or "pixel" (before its
    normalisation, which `space` declares)."""
    space: InputSpace | None = None
    """An `InputSpace`: how inputs are made of pixels."""
    box: bool = False
    """Keep perturbed inputs within the valid pixels of `space`."""
    layer: str | nn.Module | None = None
    """The module whose output is perturbed, or its name, such as "distilbert.embeddings"; None: the
    input."""
    seed: int = 0
    """Random seed of the noise, which is a function of (seed, id, number of the call)."""
    tally: _Tally = field(default_factory=_Tally, init=False, repr=False)

    def __post_init__(self) -> None:
        choose("units", self.units, UNITS)
        Noise(self.seed)
        if self.space is None and (self.units != INPUT or self.box):
            raise ValueError(
                "units and box: pixels need space=, which says how inputs are made of them"
            )
        if self.layer is not None and (self.units != INPUT or self.box):
            raise ValueError(
                "layer: expected no pixels (units, box), which only inputs are made of"
            )

    def rounds(
        self,
        model: Model,
        x: Inputs,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Iterator[Round]:
        """The steps on one batch. The model is called as it is, in the caller's autocast.

        x: `[B, ...]`, or the model's keyword arguments, of which the one floating-point tensor is
        perturbed; with `layer`, what the model takes. y: labels. loss: a function of (output, y)
        with one value for each sample, `[B]`. attention: `[B, 1, H, W]` in [0, 1], for penalties
        that need it. ids: numbers of the samples in the data set, which key their noise (default:
        their positions in the batch, of all processes in turn). mask: False at padding, which is
        not perturbed: of the shape of what is perturbed or its leading axes (default: with `layer`,
        an "attention_mask" in x).
        Errors: ValueError or TypeError for bad input.
        """
        return self._rounds(self._problem(model, x, y, loss, attention, ids, mask))

    @abstractmethod
    def _rounds(self, problem: InnerProblem) -> Iterator[Round]:
        """The steps on the batch of `problem`."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed training needs in addition to the settings."""
        return {name: torch.tensor(value) for name, value in asdict(self.tally).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned."""
        for name in asdict(self.tally):
            setattr(self.tally, name, state[name].item())

    def _problem(
        self,
        model: Model,
        x: Inputs,
        y: Tensor,
        loss: PerSampleLoss,
        attention: Tensor | None,
        ids: Sequence[int] | Tensor | None,
        mask: Tensor | None,
    ) -> InnerProblem:
        place = Place.of(model, x, self.layer)
        if place is not None:
            model, x, mask = place, place.start(), place.padding if mask is None else mask
        assert not isinstance(x, Mapping)
        found = InnerProblem(model=model, x=x, y=y, loss=loss, attention=attention, ids=ids)
        return found.within(self.units, self.space, self.box, mask)

    def _normal(self, problem: InnerProblem) -> Tensor:
        """Standard normal noise of this call, of the shape of x."""
        like = problem.zero().flatten(1)
        ids = _own_ids(len(like)) if problem.ids is None else problem.ids
        keys = sample_keys(ids, len(like))
        noise = Noise(self.seed, antithetic=False)
        drawn = noise.normals(keys, self.tally.calls, like).expand(len(like), -1)
        return drawn.reshape(problem.x.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class PerturbingProtocol(Protocol):
    """A protocol that takes one step at a perturbed batch: `x_adv = protocol(model, x, y)`.

    A subclass implements `_perturbed`.
    """

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The perturbed batch, like x and without a graph. Arguments: see `rounds`.

        Errors: as for `rounds`; ValueError for other inputs than a tensor, and with `layer`, which
        `perturbed` is for.
        """
        if self.layer is not None or not isinstance(x, Tensor):
            raise ValueError(
                "x: expected a tensor to perturb; the model's keyword arguments and a layer's "
                "output are perturbed within `with protocol.perturbed(model, x, y) as inputs:`"
            )
        return self.perturb(model, x, y, loss=loss, attention=attention, ids=ids, mask=mask).x

    @contextmanager
    def perturbed(
        self,
        model: Model,
        x: Inputs,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Iterator[Inputs]:
        """What the model is to be called with in your own training step, as a context.

        That is the perturbed x. With `layer`, it is x itself, and the layer's output is perturbed
        in the one pass that is made while the context is open. Arguments: see `rounds`.
        """
        problem = self._problem(model, x, y, loss, attention, ids, mask)
        with moved(problem.model, self._perturbed(problem).x) as inputs:
            yield inputs

    def perturb(
        self,
        model: Model,
        x: Inputs,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Perturbation:
        """The perturbation of the batch, with its numbers. Arguments: see `rounds`."""
        return self._perturbed(self._problem(model, x, y, loss, attention, ids, mask))

    def _rounds(self, problem: InnerProblem) -> Iterator[Round]:
        found = self._perturbed(problem)
        yield Round.at(found, problem.values(found.x))

    @abstractmethod
    def _perturbed(self, problem: InnerProblem) -> Perturbation:
        """The perturbation of the batch of `problem`."""


def _own_ids(count: int) -> range:
    """Positions of this process's samples in the batch of all processes, as DistributedSampler
    deals them out; different in each process also where their batches are uneven."""
    if not distributed.is_available() or not distributed.is_initialized():
        return range(count)
    size = distributed.get_world_size()
    return range(distributed.get_rank(), size * count, size)
