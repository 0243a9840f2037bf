"""Captum's attribution classes as methods of this library: `captum:Occlusion` names one.

Captum calls a model with a batch, draws from the global generators, and hooks the modules. Here it
calls the score that is explained, so that target, task, layer and padding have the same meaning as
for other methods; it draws from a seed of its own for each sample; and what it hooks is a copy.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from captum import attr
from torch import Tensor, nn

from moreaugrad.explainers.base import Explainer
from moreaugrad.registry import first_line
from moreaugrad.score import checks
from moreaugrad.score.behaviour import seeded
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.forward import out_of_memory
from moreaugrad.score.hooks import as_module, name_of, resolve
from moreaugrad.score.noise import Stream, generator
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Solution, Status

# Of classes that are not listed, such as a user's own, it is not known: they are computed one
# sample at a time, and from a seed.
BATCHED = (
    attr.Saliency, attr.InputXGradient, attr.IntegratedGradients, attr.GuidedBackprop,
    attr.Deconvolution, attr.GuidedGradCam, attr.FeatureAblation, attr.Occlusion,
)  # fmt: skip
"""Classes that compute a batch as they do each of its samples."""
FIXED = (*BATCHED, attr.DeepLift, attr.DeepLiftShap, attr.LRP, attr.ShapleyValues)
"""Classes that draw no random numbers."""
CAM_LAYER, BASELINES, FEATURES = "cam_layer", "baselines", "feature_mask"
COUNTS = ("n_samples", "n_steps")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CaptumMethod(Explainer):
    """A = the attribution of one of Captum's classes, with that class's own settings.

    >>> explainer = mg.build("captum:Occlusion", model, sliding_window_shapes=(3, 4, 4))
    >>> maps = explainer.attribute(x)

    `evaluations` counts every network pass of a sample, also one without a gradient;
    `details["backward_passes"]` those through which a gradient went back. The map has no
    derivative.
    """

    wrapped: ClassVar[type[Any]]
    """Captum's class."""
    arguments: ClassVar[Mapping[str, Mapping[str, str]]]
    """Captum's argument by the name of its setting, of "__init__" and of "attribute"."""
    required: ClassVar[tuple[str, ...]]
    """Settings that have to be given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.required:
            expect(getattr(self, name) is not None, name, f"a value for {self.method}", None)
        if self._hooks:
            as_module(self.forward_func, self.method)
        if CAM_LAYER in self._arguments:
            if self.layer is not None:
                raise ValueError(
                    f"layer: {self.method} explains the input itself, got a layer; name the layer "
                    f"whose channels are weighted with {CAM_LAYER}="
                )
            resolve(self.forward_func, getattr(self, CAM_LAYER), CAM_LAYER)
        for name in COUNTS:
            expect(getattr(self, name, 1) >= 1, name, "at least 1", getattr(self, name, 1))
        if hasattr(self, "seed"):
            generator(self.seed, 0, Stream.ENGINE, 0)  # refuses a negative one

    @property
    def multiplies_by_inputs(self) -> bool:
        own = getattr(self, "multiply_by_inputs", False)
        return bool(own) or issubclass(self.wrapped, (attr.InputXGradient, attr.LRP))

    @property
    def foreseen(self) -> bool:
        """Whether `budget` says how many evaluations a map takes; otherwise they depend on the size
        of the input, or on what a user's own class does."""
        if self.wrapped in (attr.GradientShap, attr.KernelShap, attr.Lime):
            return True
        return self.wrapped in FIXED and issubclass(self.wrapped, attr.GradientAttribution)

    @property
    def _arguments(self) -> Mapping[str, str]:
        return {setting: own for part in self.arguments.values() for setting, own in part.items()}

    @property
    def _hooks(self) -> bool:
        """Whether it takes a module, to hook its parts."""
        return "model" in inspect.signature(self.wrapped.__init__).parameters

    @property
    def _draws_baselines(self) -> bool:
        """Whether it draws from its baselines, instead of having one for each sample."""
        return getattr(type(self), BASELINES, None) is not None

    def _draws(self) -> int:
        return max(int(getattr(self, name, 1)) for name in COUNTS)

    def _plain(self, value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [self._plain(each) for each in value]
        if isinstance(value, Tensor):
            return f"given, of shape {tuple(value.shape)}"
        if callable(value) and not isinstance(value, nn.Module):
            return getattr(value, "__name__", type(value).__name__)
        return super()._plain(value)

    def _maps(self, bound: BoundScore) -> Solution:
        if bound.mask is not None and self.wrapped not in FIXED:
            raise ValueError(
                f"mask: {self.method} draws features at random, padding too; use another method"
            )
        scored = _Scored(self._hooked(bound) if self._hooks else bound)
        made = self._called("__init__", scored.bound)
        size = bound.chunks.size
        with self._translated():
            attribution = self.wrapped(scored if self._hooks else scored.forward, **made)

        def work(rows: Tensor) -> Tensor:
            scored.restart(rows)
            parts = tuple(
                part.requires_grad_() for part in bound.layout.restore(bound.origin[rows].clone())
            )
            sized = self._sized(len(rows), bound.chunks.size, bound.layout.size)
            given = self._called("attribute", scored.bound) | sized
            with self._translated(), self._as_captum(bound, rows):
                found = attribution.attribute(
                    parts if len(parts) > 1 else parts[0], additional_forward_args=(rows,), **given
                )
            return self._flat(found, bound, len(rows))

        maps = bound.chunks.over(bound.rows, work, 1 if self.wrapped in BATCHED else size)
        if bound.mask is not None:
            maps = torch.where(bound.mask, maps, 0.0)
        budgeted = any(hasattr(self, name) for name in COUNTS)
        found = Solution.direct(maps, 0, Status.FIXED_BUDGET if budgeted else Status.DIRECT)
        return replace(
            found, evaluations=scored.forwards,
            details={"backward_passes": scored.backwards.to(found.error)},
        )  # fmt: skip

    def _hooked(self, bound: BoundScore) -> BoundScore:
        """The score of a copy of the model: some of Captum's classes change modules and weights."""
        model = as_module(self.forward_func, self.method)
        try:
            copied = deepcopy(model)
        except Exception as error:
            raise ValueError(
                f"{self.method}: works on a copy of the model, which cannot be copied "
                f"({first_line(error)})"
            ) from error
        layer = None if bound.layer is None else resolve(copied, name_of(model, bound.layer))
        return replace(bound, model=copied, layer=layer)

    def _called(self, part: str, bound: BoundScore) -> dict[str, Any]:
        """Captum's arguments of "__init__" or "attribute"."""
        given = {own: getattr(self, name) for name, own in self.arguments[part].items()}
        return {
            own: self._value(own, value, bound) for own, value in given.items() if value is not None
        }

    def _value(self, own: str, value: Any, bound: BoundScore) -> Any:
        if own == "layer":
            model = as_module(self.forward_func, self.method)
            found = name_of(model, resolve(model, value, CAM_LAYER))
            return resolve(bound.model, found, CAM_LAYER)
        parts = bound.layout.restore(bound.origin[:1])
        if own in (BASELINES, FEATURES) and not callable(value):
            every = value if isinstance(value, (tuple, list)) else (value,) * len(parts)
            expect(len(every) == len(parts), own, f"{len(parts)}, one an input", len(every))
            many = own == BASELINES and self._draws_baselines
            made = tuple(
                _like(own, one, part, many) for one, part in zip(every, parts, strict=True)
            )
            return made if len(parts) > 1 else made[0]
        return _tuples(value)

    def _sized(self, rows: int, size: int, entries: int) -> dict[str, int]:
        """The arguments that say how many inputs go into a network pass."""
        # Captum makes room for all that it is allowed, although a map needs no more than these.
        perturbed = max(1, min(size // rows, max(entries, self._draws())))
        sizes = {"perturbations_per_eval": perturbed, "internal_batch_size": max(rows, size)}
        known = inspect.signature(self.wrapped.attribute).parameters
        return {name: value for name, value in sizes.items() if name in known}

    @contextmanager
    def _as_captum(self, bound: BoundScore, rows: Tensor) -> Iterator[None]:
        """While open, random numbers are those of the sample, and there are gradients if needed."""
        draws: AbstractContextManager[None] = nullcontext()
        if self.wrapped not in FIXED:
            (row,) = rows.tolist()
            own = generator(self.seed, bound.keys[row], Stream.ENGINE, 0)
            draws = seeded(bound.origin.device, int(own.integers(2**32)))
        perturbs = issubclass(self.wrapped, attr.PerturbationAttribution)
        with draws, torch.set_grad_enabled(not perturbs), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting .*hooks")  # nobody sees the copy's
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns what Captum raises into an error that names the method."""
        try:
            yield
        except checks.ModelError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            raise ValueError(f"{self.method}: {first_line(error)}") from error

    def _flat(self, found: Any, bound: BoundScore, rows: int) -> Tensor:
        parts = found if isinstance(found, tuple) else (found,)
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else () for part in parts]
        expected = [(rows, *shape) for shape in bound.layout.shapes]
        expect(shapes == expected, "maps", f"those of the inputs' shape {expected}", shapes)
        return bound.layout.flatten([part.detach().to(bound.origin) for part in parts])


class _Scored(nn.Module):
    """The score as a module of inputs and the numbers of their samples; it counts its passes."""

    def __init__(self, bound: BoundScore) -> None:
        super().__init__()
        self.bound = bound
        if isinstance(bound.model, nn.Module):
            self.model = bound.model  # Captum looks for modules below the one that it is given
        self.forwards = torch.zeros(len(bound), dtype=torch.long, device=bound.origin.device)
        self.backwards = torch.zeros_like(self.forwards)

    def restart(self, rows: Tensor) -> None:
        """Count these samples anew: a chunk that ran out of memory is computed again."""
        self.forwards[rows] = self.backwards[rows] = 0

    def forward(self, *given: Tensor) -> Tensor:
        *parts, rows = given
        scores = self.bound.read(self.bound.outputs_of(tuple(parts), rows), rows)
        self.forwards.index_add_(0, rows, torch.ones_like(rows))
        if self.bound.meter is not None:
            self.bound.meter(len(rows))
        if torch.is_grad_enabled():
            if not scores.requires_grad:
                raise checks.detached()
            scores.register_hook(partial(self._went_back, rows))  # type: ignore[no-untyped-call]
        return scores

    def _went_back(self, rows: Tensor, _gradient: Tensor) -> None:
        self.backwards.index_add_(0, rows, torch.ones_like(rows))


def _like(name: str, value: Any, part: Tensor, many: bool) -> Any:
    """A baseline or a mask of features for an input `[1, ...]`. many: baselines are drawn from."""
    if isinstance(value, Tensor):
        rows = "M" if many else "1"
        if value.shape[1:] != part.shape[1:] or not (many or len(value) == 1):
            shape = ", ".join(map(str, (rows, *part.shape[1:])))
            raise ValueError(f"{name}: expected the shape ({shape}), got {tuple(value.shape)}")
        return value.detach().to(part.device if name == FEATURES else part)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected numbers or tensors, got {type(value).__name__}")
    # Captum refuses to draw from less than two.
    return part.new_full((2, *part.shape[1:]), value) if many else value


def _tuples(value: Any) -> Any:
    """Lists, which TOML has, as the tuples that Captum asks for."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
