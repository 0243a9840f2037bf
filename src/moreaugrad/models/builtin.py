"""The built-in classifiers of synthetic cells: small and smooth, with known ground truth maps."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from moreaugrad.data.cells import CLASS_NAMES

WEIGHTS = {
    name: Path(__file__).parents[1] / "weights" / f"{name}.safetensors"
    for name in ("builtin", "builtin-elastic-net")
}
"""Files by the name of the model. The second is the first, fine-tuned with the elastic net."""

SIZE = 64
MEAN, STD = (0.3, 0.3, 0.3), (0.25, 0.25, 0.25)
"""Preprocessing: RGB images of 64 x 64 pixels, normalised with this mean and std."""


class _Residual(nn.Module):
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
    """A classifier from inputs `[B, 3, 64, 64]` to ten logits `[B, 10]`.

    It is smooth: with SiLU instead of ReLU, strided convolutions and average pooling its curvature
    is finite and its maps are continuous. No layer mixes the samples of a batch.
    widths: channels of the three stages.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 80)) -> None:
        super().__init__()
        first, second, third = widths
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2),
            _Residual(first),
            nn.SiLU(), nn.Conv2d(first, second, 3, stride=2, padding=1),
            _Residual(second),
            nn.SiLU(), nn.Conv2d(second, third, 3, stride=2, padding=1),
            _Residual(third),
            nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(third, len(CLASS_NAMES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits
