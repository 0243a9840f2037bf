"""Targets of outputs that say where: segmentations and detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from moreaugrad.registry import choose
from moreaugrad.score.outputs import described, tensor_output
from moreaugrad.score.precision import raised
from moreaugrad.settings import expect
from moreaugrad.targets.base import TargetFunction, check_classes, classes_for_each, for_each

MEAN, SUM = "mean", "sum"
REDUCTIONS = (MEAN, SUM)


@dataclass(frozen=True, eq=False)
class Region(TargetFunction):
    """The mean, or sum, of a class's output over a region: sum_p m_p z_{c,p} / sum_p m_p.

    The output is `[B, K, H, W]`, that of a segmentation; also as `.logits`, or under "out" as
    torchvision's models return it.

    >>> segment = torch.nn.Conv2d(3, 5, 3, padding=1).eval()
    >>> mask = segment(x).argmax(1) == 2  # [B, H, W]: where class 2 is predicted
    >>> mask[:, :8, :8] = True
    >>> maps = mg.SimpleGradient(segment).attribute(x, mg.targets.Region(2, mask))

    Errors: ValueError for a mask of another size than the output, negative or zero everywhere, and
    for a class that the output does not have.
    Source: Vinogradova et al. (2020), arXiv 2002.11434, equation (1), as the sum.
    """

    label: int | Sequence[int] | Tensor
    """The class c: one, or one for each sample `[B]`."""
    mask: Tensor
    """The region m, of the output's size: one `[H, W]` for all samples, or one for each `[B, H,
    W]`; True inside, or weights >= 0."""
    reduction: str = MEAN
    """"mean" or "sum" over the region."""

    def __post_init__(self) -> None:
        choose("reduction", self.reduction, REDUCTIONS)

    def fitted(self, batch: int, device: torch.device) -> Self:
        # Volumes [B, D, H, W] need a mask for each sample.
        axes = max(2, np.ndim(self.mask) - 1)
        mask = for_each("mask", self.mask, axes, batch, device)
        sizes = mask.flatten(1).double()
        if not bool(((sizes >= 0).all(1) & (sizes.sum(1) > 0)).all()):
            raise ValueError(
                "target, mask: expected True, or weights >= 0, at one position of each sample at "
                "least, got a mask that is empty, negative or NaN"
            )
        return replace(
            self, label=classes_for_each("label", self.label, 0, batch, device), mask=mask
        )

    def __call__(self, output: Any) -> Tensor:
        table = raised(tensor_output(output))
        label, mask = torch.as_tensor(self.label), self.mask
        if table.ndim < 3 or table.shape[2:] != mask.shape[1:]:
            raise ValueError(
                f"mask: expected the size of the output [B, K, positions...], whose shape is "
                f"{tuple(table.shape)}, got {tuple(mask.shape[1:])}: resize the mask to it"
            )
        check_classes("label", label, table.shape[1])
        weights = mask.to(table.dtype).flatten(1)
        chosen = table.flatten(2)[torch.arange(len(table), device=table.device), label]
        total = torch.where(weights > 0, weights * chosen, 0.0).sum(1)
        return total / weights.sum(1) if self.reduction == MEAN else total


@dataclass(frozen=True, eq=False)
class Detection(TargetFunction):
    """The score of the best detection of a class at a box: max s_i over those with this label and
    IoU(box_i, box) >= iou.

    The output is that of torchvision's detection models in evaluation mode: for each image a
    dictionary with "boxes" `[N, 4]`, "labels" `[N]` and "scores" `[N]`. The box decides which
    detection is meant; differentiated is its score. Where none fits, for instance under noise, the
    number is 0, without a gradient: lower the model's score threshold so that weak detections stay
    in its output.

    >>> class Detector(torch.nn.Module):
    ...     def forward(self, images):
    ...         box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    ...         return [
    ...             {"boxes": box, "labels": torch.tensor([1]), "scores": i.mean().sigmoid()[None]}
    ...             for i in images
    ...         ]
    >>> target = mg.targets.Detection(1, torch.tensor([10.0, 8.0, 42.0, 40.0]))
    >>> maps = mg.SimpleGradient(Detector().eval()).attribute(x, target)

    Errors: ValueError for a sample in which no detection fits, unless `required` is False.
    """

    label: int | Sequence[int] | Tensor
    """The class, by the model's own numbers: one, or one for each sample `[B]`."""
    box: Tensor | Sequence[float]
    """Corners (x1, y1, x2, y2) in pixels of the input: `[4]` for all samples, or `[B, 4]`."""
    iou: float = 0.5
    """Smallest intersection over union of a detection's box with `box`."""
    required: bool = True
    """Refuse samples without such a detection; False gives them the number 0 and a map of zeros."""

    def __post_init__(self) -> None:
        expect(0 < self.iou <= 1, "iou", "a number in (0, 1]", self.iou)

    def fitted(self, batch: int, device: torch.device) -> Self:
        box = for_each("box", self.box, 1, batch, device)
        corners = box.double()
        if box.shape[1] != 4 or not bool((corners[:, :2] < corners[:, 2:]).all()):
            raise ValueError(
                "target, box: expected corners (x1, y1, x2, y2) with x1 < x2 and y1 < y2, got "
                f"{box.tolist()}"
            )
        return replace(self, label=classes_for_each("label", self.label, 0, batch, device), box=box)

    def accepted(self, values: Tensor) -> Self:
        """Required at the explained input alone: under noise or an attack it may be lost."""
        lost = (values == 0).nonzero()[:, 0].tolist()
        if lost and self.required:
            raise ValueError(
                f"target: expected a detection of the label whose box overlaps the given one by "
                f"an IoU of {self.iou:g} or more, got none in sample(s) {lost[:10]}: see the "
                "model's boxes and labels, or lower iou or the model's score threshold"
            )
        return replace(self, required=False)

    def __call__(self, output: Any) -> Tensor:
        keys = ("boxes", "labels", "scores")
        if not isinstance(output, (list, tuple)) or not all(
            isinstance(found, Mapping) and all(key in found for key in keys) for found in output
        ):
            raise TypeError(
                "expected a detection model's output, for each image a dictionary with boxes, "
                f"labels and scores; got {described(output)}"
            )
        chosen = zip(output, torch.as_tensor(self.label), torch.as_tensor(self.box), strict=True)
        return torch.stack([self._best(found, label, box) for found, label, box in chosen])

    def _best(self, found: Mapping[str, Tensor], label: Tensor, box: Tensor) -> Tensor:
        fits = (found["labels"] == label) & (_overlaps(found["boxes"].detach(), box) >= self.iou)
        scores = found["scores"][fits]
        return scores.amax() if len(scores) else scores.sum()  # 0, with a graph


def _overlaps(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union of each of `boxes` `[N, 4]` with `box` `[4]`: `[N]`."""
    box = box.to(boxes)
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    inside = (high - low).clamp_min(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return inside / (areas + (box[2:] - box[:2]).prod() - inside)
