"""The network of a run, as it is fast on this machine, and its predictions."""

from __future__ import annotations

import ast
import hashlib
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from moreaugrad.files.units import Record
from moreaugrad.models import LoadedModel, Preprocess, load_model, optimise
from moreaugrad.runs.plans.arrays import ArrayPlan
from moreaugrad.runs.plans.common import DTYPES, ComputePlan, ModelPlan, PreprocessPlan
from moreaugrad.runs.plans.explain import ARRAYS, IMAGES, TEXTS
from moreaugrad.runs.processes import Processes
from moreaugrad.score.forward import forward
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.noise import Noise
from moreaugrad.score.score import Score
from moreaugrad.score.targets import Readout
from moreaugrad.settings import nearest

M = TypeVar("M", bound=ModelPlan)

LIKELIEST = 5
"""Classes of a prediction that are reported."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A loaded model on this process's device; `compute` has every choice made, and is the same in
    all processes. bounded: whether `space` says which inputs are valid."""

    model: LoadedModel
    compute: ComputePlan
    device: torch.device
    bounded: bool = True

    @classmethod
    def load(
        cls, plan: ModelPlan, compute: ComputePlan, processes: Processes | None = None
    ) -> Network:
        """Errors: ValueError for no or an unknown model, weights that do not fit, a missing
        device."""
        named = resolved_device(compute.device)
        device = torch.device((processes or Processes()).own(named))
        model = load_model(**plan.arguments(), device=device)
        chosen = replace(
            compute, device=named, threads=compute.threads or torch.get_num_threads(),
            channels_last=resolved_layout(compute.channels_last, named),
            fold_batchnorm=True if compute.fold_batchnorm is None else compute.fold_batchnorm,
        )  # fmt: skip
        exact = torch.float64 if compute.dtype == "float64" else torch.float32
        found = optimise(
            model.module.to(exact), None, fold_batchnorm=bool(chosen.fold_batchnorm),
            channels_last=bool(chosen.channels_last),
            dtype=torch.bfloat16 if compute.dtype == "bfloat16" else None, compile=compute.compile,
        )  # fmt: skip
        for step in found.steps:
            if step.name == "dtype" and not step.applied:  # which changes what is computed
                raise ValueError(f"dtype: {model.name} cannot compute in bfloat16: {step.reason}")
        network = cls(model=replace(model, module=found.model), compute=chosen, device=device)
        if compute.compile:
            network._compile()
        return network

    def _compile(self) -> None:
        """Compiles now, so that a warning says at once if that fails."""
        shape = self.model.input_shape
        if shape is not None:
            # Code for one row would be for one row alone.
            some = [Noise().normal(0, row, math.prod(shape)).reshape(shape) for row in range(2)]
            Score(self.model.module, check=False).bind(self.batch(some)).value_and_grad()

    @classmethod
    def of(cls, model: nn.Module | LoadedModel, x: Tensor | None = None) -> Network:
        """A network at hand, as it is: on its own device, its inputs not preprocessed unless it
        says how. x: inputs of a module; where they leave [0, 1], nothing is known about which
        inputs are valid, and images of them are stretched."""
        bounded = True
        if not isinstance(model, LoadedModel):
            preprocess, bounded = (Preprocess(), True) if x is None else _seen_as(x.detach())
            model = LoadedModel(module=model, preprocess=preprocess)
        model = replace(model, name=model.name or type(model.module).__name__)
        weight = next(model.module.parameters(), torch.empty(0))
        dtype = str(weight.dtype).removeprefix("torch.")
        compute = ComputePlan(
            device=str(weight.device), threads=torch.get_num_threads(), channels_last=False,
            fold_batchnorm=False, dtype=dtype if dtype in DTYPES else "float32",
        )  # fmt: skip
        return cls(model=model, compute=compute, device=weight.device, bounded=bounded)

    @property
    def kind(self) -> str:
        """What it takes in: images, texts or arrays."""
        if self.model.tokenizer is not None:
            return TEXTS
        return IMAGES if self.model.array is None else ARRAYS

    def batch(self, inputs: list[Tensor]) -> Tensor:
        """Inputs such as `[C, H, W]`, or numbers of tokens, as one batch for the network."""
        exact = torch.float64 if self.compute.dtype == "float64" else torch.float32
        batch = torch.stack(inputs).to(self.device)
        return batch if self.model.tokenizer is not None else batch.to(exact)

    def tried(self, x: Tensor) -> Tensor:
        """An input as a batch of one. Errors: ValueError where the network cannot process it, as
        where images keep their own sizes and one is too small."""
        batch = self.batch([x])
        if self.model.input_shape is None:
            with self.model.sized():
                self.predict(batch)
        return batch

    def label(self, index: int) -> str:
        names = self.model.labels
        return names[index] if names is not None and index < len(names) else f"class {index}"

    def resolved(self, plan: M) -> M:
        """The plan with all of the preprocessing spelt out, and with digests of the weights and of
        the names of the outputs."""
        names = hashlib.sha256(repr(self.model.labels).encode()).hexdigest()[:16]
        preprocess = plan.preprocess
        more: dict[str, Any] = {}
        if self.model.array is not None:
            more = {"array": ArrayPlan(**asdict(self.model.array))}
        elif self.model.tokenizer is None:
            preprocess = PreprocessPlan(**asdict(self.model.preprocess))
        digest = weights_digest(self.model.module)
        return replace(plan, preprocess=preprocess, digest=digest, outputs=names, **more)

    @property
    def space(self) -> InputSpace:
        return InputSpace(mean=self.model.preprocess.mean, std=self.model.preprocess.std)

    def target(self, name: int | str | None) -> int | None:
        """A class by index or label. Errors: ValueError with the nearest label."""
        if name is None or isinstance(name, int):
            return name
        labels = self.model.labels or ()
        if name.isdecimal():
            return int(name)
        found = [i for i, label in enumerate(labels) if label.casefold() == name.casefold()]
        if len(found) == 1:
            return found[0]
        raise ValueError(
            f"target: expected a class index{' or a label of the model' if labels else ''}, got "
            f"{name!r}{nearest(name, labels)}"
            + (f" ({len(found)} classes have this label: give the index)" if found else "")
        )

    @torch.no_grad()
    def predict(self, batch: Tensor, task: str = "auto") -> list[list[Record]]:
        """For each input the likeliest classes: index, label, probability; [] where it has none."""
        probabilities = self.probabilities(batch, task)
        if probabilities is None:
            return [[] for _ in batch]
        return likeliest(probabilities, self.label)

    @torch.no_grad()
    def probabilities(self, batch: Tensor, task: str = "auto") -> Tensor | None:
        """`[B, K]`, float64, NaN where the outputs are; two classes for a single logit. None for
        outputs without probabilities."""
        outputs = forward(self.model.module, batch).cpu().double()
        return None if outputs.ndim > 2 else Readout(task=task).probabilities(outputs)


def likeliest(probabilities: Tensor, label: Callable[[int], str]) -> list[list[Record]]:
    """The classes with the largest of the probabilities `[B, K]`: index, label, probability."""
    top = probabilities.topk(min(LIKELIEST, probabilities.shape[1]), dim=1)
    return [
        [{"class": index, "label": label(index), "probability": probability}
         for index, probability in zip(classes, values, strict=True) if math.isfinite(probability)]
        for classes, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]  # fmt: skip


def _seen_as(x: Tensor) -> tuple[Preprocess, bool]:
    """How pixels in [0, 1] would become these inputs `[B, C, H, W]`, and whether they are pixels.

    Errors: ValueError for other than 1 or 3 channels.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            "data: expected images [B, C, H, W] of 1 or 3 channels, got the shape "
            f"{list(x.shape)}: explain other inputs by a method's own class, such as "
            "SmoothGrad(model).explain(x)"
        )
    known, channels = x[x.isfinite()].double(), x.shape[1]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return Preprocess(mean=(0.0,) * channels, std=(1.0,) * channels), True
    extent = high - low or 1.0
    return Preprocess(mean=(-low / extent,) * channels, std=(1 / extent,) * channels), False


def resolved_layout(channels_last: bool | None, device: str) -> bool:
    """Convolutions on mps have returned wrong numbers for inputs that are channels-last."""
    return not device.startswith("mps") if channels_last is None else channels_last


def resolved_device(name: str | None) -> str:
    """`cuda` where there is one, else `cpu`, when no device is named.

    `mps` is never chosen of itself: it has no float64, which certificates and metrics need.

    Errors: ValueError for a name of another kind, and for a device that is not there.
    """
    there = {
        "cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()),
    }  # fmt: skip
    if name in (None, "auto"):
        return "cuda" if there["cuda"] else "cpu"
    named = re.fullmatch(r"(cpu|cuda|mps)(?::(\d{1,4}))?", str(name))
    if named is None:
        raise ValueError(f"device: expected auto, cpu, cuda, cuda:NUMBER or mps; got {name!r}")
    if int(named[2] or 0) >= there[named[1]]:
        found = ", ".join(f"{kind} ({count})" for kind, count in there.items() if count)
        raise ValueError(f"device: expected one of this machine: {found}; got {name!r}")
    return str(name)


ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Of a function that a module shows, another in each process."""
INSTALLED = {"site-packages", "dist-packages"}
"""Folders of packages, whose versions a run's environment has."""


def weights_digest(module: nn.Module) -> str:
    """Of all weights and buffers, of what the module says of its parts, and of their numbers and
    code: another training, temperature or activation is another configuration.

    Not of what is none of these: a function that the code calls, or a list that it reads.
    """
    digest = hashlib.sha256(ADDRESS.sub("", repr(module)).encode())
    codes = {kind: _code(kind) for part in module.modules() for kind in type(part).mro()}
    digest.update("".join(sorted(codes.values())).encode())
    usual = vars(nn.Module()).keys()
    for name, part in module.named_modules():
        # Texts of installed packages are names and paths.
        kept = (float, int, tuple, str) if codes[type(part)] else (float, int, tuple)
        own = {k: v for k, v in vars(part).items() if k not in usual and isinstance(v, kept)}
        digest.update(f"{name} {ADDRESS.sub('', repr(sorted(own.items())))}".encode())
    state = {**dict(module.named_buffers()), **module.state_dict()}
    for name, value in sorted(state.items()):
        if not isinstance(value, Tensor):  # a module's extra state, which may hold anything
            digest.update(f"{name} {type(value)}".encode())
            continue
        data = (value.dequantize() if value.is_quantized else value).detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {list(data.shape)}".encode())
        digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _code(kind: type) -> str:
    """A user's class as its source says it, without comments; empty for one of an installed
    package, and where there is no source."""
    try:
        if INSTALLED & {*Path(inspect.getfile(kind)).parts}:
            return ""
        return ast.dump(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    except (OSError, TypeError, SyntaxError):
        return ""


@contextmanager
def computing(compute: ComputePlan) -> Iterator[None]:
    """While open, passes use this many CPU threads, and convolutions on a GPU are computed the same
    way each time."""
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    before = (cudnn.deterministic, cudnn.benchmark)
    torch.set_num_threads(compute.threads or threads)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = before
