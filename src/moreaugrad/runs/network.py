"""The job's network, as it is fast on this machine, and what it says of an input."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.models import LoadedModel, fold_batchnorm, load_model
from moreaugrad.registry import nearest
from moreaugrad.runs.job import ComputePlan, ModelPlan
from moreaugrad.score.forward import forward
from moreaugrad.score.readout import tensor_output

LIKELIEST = 5
"""Classes of a prediction that are told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A loaded model on its device; `compute` has every choice made."""

    model: LoadedModel
    compute: ComputePlan

    @classmethod
    def load(cls, plan: ModelPlan, compute: ComputePlan) -> Network:
        """Errors: ValueError for no or an unknown model, weights that do not fit, a missing
        device."""
        device = torch.device(resolved_device(compute.device))
        on_cpu = device.type == "cpu"
        dtype = getattr(torch, compute.dtype)
        model = load_model(**plan.arguments(), device=device)
        chosen = replace(
            compute,
            device=str(device),
            threads=compute.threads or torch.get_num_threads(),
            channels_last=on_cpu if compute.channels_last is None else compute.channels_last,
            fold_batchnorm=on_cpu if compute.fold_batchnorm is None else compute.fold_batchnorm,
        )
        # Folded before it is cast: products of reduced weights would be reduced twice.
        module = fold_batchnorm(model.module) if chosen.fold_batchnorm else model.module
        module = module.to(dtype)
        if chosen.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if dtype == torch.bfloat16:
            _compute_reduced(module)
        return cls(model=replace(model, module=module), compute=chosen)

    def batch(self, inputs: list[Tensor]) -> Tensor:
        """Inputs `[C, H, W]` as one batch for the network."""
        exact = torch.float64 if self.compute.dtype == "float64" else torch.float32
        return torch.stack(inputs).to(self.compute.device, exact)

    def tried(self, x: Tensor) -> Tensor:
        """An input as a batch of one. Errors: ValueError where the network cannot process it, as
        where images keep their own sizes and one is too small."""
        batch = self.batch([x])
        if self.model.preprocess.input_shape is None:
            with self.model.sized():
                self.predict(batch, "auto")
        return batch

    def label(self, index: int) -> str:
        names = self.model.labels
        return names[index] if names is not None and index < len(names) else f"class {index}"

    def outputs_digest(self) -> str:
        """Of the names of its outputs."""
        return hashlib.sha256(repr(self.model.labels).encode()).hexdigest()[:16]

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
    def predict(self, batch: Tensor, task: str) -> list[list[tuple[int, float]]]:
        """For each input the likeliest classes with their probabilities; [] where it has none."""
        outputs = forward(self.model.module, batch).double()
        if task == "regression" or outputs.ndim > 2:
            return [[] for _ in batch]
        if outputs.ndim == 1 or outputs.shape[1] == 1:
            up = torch.sigmoid(outputs.reshape(-1, 1))
            probabilities = torch.cat([1 - up, up], dim=1)
        elif task == "multilabel":
            probabilities = torch.sigmoid(outputs)
        else:
            probabilities = torch.softmax(outputs, dim=1)
        top = probabilities.topk(min(LIKELIEST, probabilities.shape[1]), dim=1)
        return [
            list(zip(classes, values, strict=True))
            for classes, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]


def resolved_device(name: str | None) -> str:
    """`cuda` or `mps` where there is one, else `cpu`, when no device is named.

    Errors: ValueError for a name of another kind, and for a device that is not there.
    """
    there = {
        "cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()),
    }  # fmt: skip
    if name in (None, "auto"):
        return next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    named = re.fullmatch(r"(cpu|cuda|mps)(?::(\d{1,4}))?", str(name))
    if named is None:
        raise ValueError(f"device: expected auto, cpu, cuda, cuda:NUMBER or mps; got {name!r}")
    if int(named[2] or 0) >= there[named[1]]:
        found = ", ".join(f"{kind} ({count})" for kind, count in there.items() if count)
        raise ValueError(f"device: expected one of this machine: {found}; got {name!r}")
    return str(name)


def weights_digest(module: nn.Module) -> str:
    """Of all weights: another training of the same architecture is another configuration."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):  # a module's extra state, which may hold anything
            digest.update(f"{name} {type(value)}".encode())
            continue
        data = (value.dequantize() if value.is_quantized else value).detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {list(data.shape)}".encode())
        digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def fixed_threads(count: int | None) -> Iterator[None]:
    """While open, passes use this many threads of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compute_reduced(module: nn.Module) -> None:
    """Inputs, sums and maps stay in float32; the network alone computes in its own precision."""
    kept = {"dtype": next(module.parameters()).dtype}

    def lower(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            arg.to(kept["dtype"]) if isinstance(arg, Tensor) and arg.is_floating_point() else arg
            for arg in args
        )

    def raised(_: nn.Module, __: tuple[Any, ...], output: Any) -> Tensor:
        return tensor_output(output).float()

    module.register_forward_pre_hook(lower)
    module.register_forward_hook(raised)
