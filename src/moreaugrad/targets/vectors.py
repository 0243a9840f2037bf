"""Targets of outputs that are one vector for each sample: embeddings, and scores of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from moreaugrad.registry import choose
from moreaugrad.score.outputs import described, named_parts, tensor_output
from moreaugrad.score.precision import log_sigmoid, raised
from moreaugrad.targets.base import TargetFunction, check_classes, classes_for_each, for_each

EMBEDDINGS = ("image_embeds", "text_embeds", "pooler_output")
"""Names of the one vector of a sample in outputs of Hugging Face's models."""

LOG_PROBABILITY = "log-probability"
REDUCTIONS = ("mean", "sum", LOG_PROBABILITY)


@dataclass(frozen=True, eq=False)
class Similarity(TargetFunction):
    """The cosine of the angle between the model's embedding e and a reference r: <e, r> / |e| |r|.

    The output is `[B, D]`, or one of Hugging Face's with such a field. The reference is the
    embedding of another image, or of a text in CLIP.

    >>> embed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(x[0].numel(), 8)).eval()
    >>> reference = embed(x.flip(-1)).detach()  # of the mirrored image
    >>> maps = mg.SimpleGradient(embed).attribute(x, mg.targets.Similarity(reference))

    Errors: ValueError for a reference of another length, of zeros or not finite, and for an output
    with several embeddings or none.
    """

    reference: Tensor
    """r: one `[D]` for all samples, or one for each `[B, D]`."""
    field: str = ""
    """Name of the output's field that is e; empty for a tensor, and for an output with only one of
    image_embeds, text_embeds and pooler_output."""

    def fitted(self, batch: int, device: torch.device) -> Self:
        found = for_each("reference", self.reference, 1, batch, device).detach()
        if not bool((found.isfinite().all(1) & found.any(1)).all()):
            raise ValueError("target, reference: expected finite vectors that are not zero")
        return replace(self, reference=found)

    def __call__(self, output: Any) -> Tensor:
        found = self._embedding(output)
        if found.shape != self.reference.shape:
            raise ValueError(
                f"reference: expected the length of the embeddings {tuple(found.shape)}, [B, D], "
                f"got {tuple(self.reference.shape)}"
            )
        return F.cosine_similarity(_scaled(found), _scaled(self.reference.to(found)), dim=1)

    def _embedding(self, output: Any) -> Tensor:
        if isinstance(output, Tensor) and not self.field:
            return output
        parts = named_parts(output)
        names = [self.field] if self.field else [name for name in EMBEDDINGS if name in parts]
        found = parts.get(names[0]) if len(names) == 1 else None
        if not isinstance(found, Tensor):
            raise ValueError(
                f"field: expected the name of the output's embedding, got {self.field!r} for "
                f"{described(output)}"
            )
        return found


def _scaled(vectors: Tensor) -> Tensor:
    """In at least single precision, with the largest entry 1: torch's cosine takes norms below 1e-8
    for that. A vector of zeros stays."""
    found = raised(vectors)
    largest = found.detach().abs().amax(1, keepdim=True)
    return found / torch.where(largest > 0, largest, 1.0)


@dataclass(frozen=True, eq=False)
class ClassSet(TargetFunction):
    """Several classes at once: the mean or the sum of their outputs, or the log-probability of the
    set S, log sum_{c in S} p_c with p the softmax of all outputs.

    >>> maps = mg.SimpleGradient(model).attribute(x, mg.targets.ClassSet([0, 2, 5]))

    The output is `[B, K]`. One class against another is the score "against:NUMBER" of explainers.
    Errors: ValueError for an empty set, a class that the output does not have, and for the
    log-probability of all classes, which is 0.
    """

    classes: Sequence[int] | Sequence[Sequence[int]] | Tensor
    """The set S: classes for all samples, or for each sample a list of them."""
    reduction: str = LOG_PROBABILITY
    """"log-probability", or the "mean" or "sum" of the outputs."""

    def __post_init__(self) -> None:
        choose("reduction", self.reduction, REDUCTIONS)

    def fitted(self, batch: int, device: torch.device) -> Self:
        given: Any = self.classes
        sets = given.tolist() if isinstance(given, Tensor) else given
        if not isinstance(sets, Sequence) or isinstance(sets, str) or not len(sets):
            raise ValueError(f"target, classes: expected one class at least, got {given!r}")
        if all(isinstance(own, Sequence) and not isinstance(own, str) for own in sets):
            if not all(sets):
                raise ValueError(f"target, classes: expected no empty set, got {given!r}")
            longest = max(map(len, sets))
            # A class that is named twice counts once.
            sets = [[*own, *[own[0]] * (longest - len(own))] for own in sets]
        return replace(self, classes=classes_for_each("classes", sets, 1, batch, device))

    def __call__(self, output: Any) -> Tensor:
        table, classes = raised(tensor_output(output)), torch.as_tensor(self.classes)
        if table.ndim != 2:
            raise ValueError(f"expected outputs [B, K], got shape {tuple(table.shape)}")
        check_classes("classes", classes, table.shape[1])
        inside = torch.zeros_like(table, dtype=torch.bool).scatter(1, classes, True)
        if self.reduction != LOG_PROBABILITY:
            total = torch.where(inside, table, 0.0).sum(1)
            return total / inside.sum(1) if self.reduction == "mean" else total
        if bool(inside.all(1).any()):
            raise ValueError(f"classes: expected fewer than all {table.shape[1]} classes")
        own, others = (table.masked_fill(~kept, -torch.inf) for kept in (inside, ~inside))
        return log_sigmoid(own.logsumexp(1) - others.logsumexp(1))
