"""The built-in classifiers of synthetic cells: small, smooth, and their true maps are known."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from moreaugrad.data.cells import CLASS_NAMES

WEIGHTS = {
    name: Path(__file__).parents[1] / "weights" / f"{name}.safetensors"
    for name in ("builtin", "builtin-elastic-net")
}
"""By the network's name. The second is the first, trained on with the elastic net's penalty."""

SIZE = 64
MEAN, STD = (0.3, 0.3, 0.3), (0.25, 0.25, 0.25)
"""What the classifier expects: RGB pictures of 64 x 64 pixels, normalised with these."""


class Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))), both 3 x 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class CellClassifier(nn.Module):
    """`[B, 3, 64, 64]` to ten logits `[B, 10]`, twice continuously differentiable.

    SiLU throughout, strided convolutions and average pooling: no kink (as ReLU and max-pooling
    have) bends its score, so its curvature is finite and its maps are continuous. No layer couples
    the samples of a batch.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 80)) -> None:
        super().__init__()
        first, second, third = widths
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2),
            Residual(first),
            nn.SiLU(), nn.Conv2d(first, second, 3, stride=2, padding=1),
            Residual(second),
            nn.SiLU(), nn.Conv2d(second, third, 3, stride=2, padding=1),
            Residual(third),
            nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(third, len(CLASS_NAMES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits
