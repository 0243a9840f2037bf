"""Networks of 16 x 16 pictures that a job names as `tiny_models:NAME`; the same at each call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moreaugrad.models import LoadedModel, Preprocess

SIZE = 16
LABELS = ("stripe", "dot", "blank", "cross")
PREPROCESS = Preprocess(resize=SIZE, crop=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)


def _drawn(module: nn.Module) -> nn.Module:
    """Weights from a generator of its own, large enough that maps differ between inputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.eval()


def _loaded(module: nn.Module, labels: tuple[str, ...] | None = LABELS) -> LoadedModel:
    return LoadedModel(module=_drawn(module), preprocess=PREPROCESS, labels=labels)


def smooth() -> LoadedModel:
    """Four classes, SiLU, convolutions."""
    return _loaded(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(6, 6, 3, padding=1), nn.SiLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4),
        )
    )  # fmt: skip


def kinked() -> LoadedModel:
    """ReLU, of which noise has a centre."""
    return _loaded(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4),
        )
    )  # fmt: skip


def normalised() -> LoadedModel:
    """With batch normalisation, whose statistics are not those of a fresh layer."""
    norm = nn.BatchNorm2d(6)
    model = _loaded(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), norm, nn.SiLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 4),
        )
    )  # fmt: skip
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(torch.linspace(-0.3, 0.3, 6))
    norm.running_var.copy_(torch.linspace(0.5, 2, 6))
    return model


def folded() -> LoadedModel:
    """Its batch normalisation has learnt weights, and the statistics of a fresh layer."""
    model = normalised()
    norm = model.module[1]  # type: ignore[index]
    norm.reset_running_stats()
    nn.init.uniform_(norm.weight, 0.5, 2)
    return model


class _Helped(nn.Module):
    """In training it has a second output, which the loss leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.helper = nn.Linear(3, 4)
        first = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1, stride=2)
        self.inner = nn.Sequential(*first, smooth().module)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        out: Tensor = self.inner(x)
        return {"logits": out, "helper": self.helper(x.mean((2, 3)))} if self.training else out


def helped() -> LoadedModel:
    return _loaded(_Helped())


def flat() -> LoadedModel:
    """Without a convolution, which Grad-CAM needs."""
    return _loaded(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4)))


def constant() -> LoadedModel:
    """Outputs that do not depend on the input."""
    return _loaded(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4), nn.Threshold(1e9, 0.5))
    )


def plain() -> nn.Module:
    """A module without preprocessing or labels."""
    return _drawn(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)))


def single() -> LoadedModel:
    """One logit."""
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.SiLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 1))
    return _loaded(module, ("below", "above"))


class _Picky(nn.Module):
    """NaN for dark pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = smooth().module

    def forward(self, x: Tensor) -> Tensor:
        dark = x.mean((1, 2, 3)) < -1
        out: Tensor = self.inner(x)
        return out.where(~dark[:, None], torch.nan)


def picky() -> LoadedModel:
    return LoadedModel(module=_Picky().eval(), preprocess=PREPROCESS, labels=LABELS)


class _Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = smooth().module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.detach())
        return out


def detached() -> LoadedModel:
    return LoadedModel(module=_Detached().eval(), preprocess=PREPROCESS, labels=LABELS)


class _Endless(nn.Module):
    """Its outputs are finite, and their gradient is not: the root of zero has no slope."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4))

    def forward(self, x: Tensor) -> Tensor:
        zeros = (x * 0).sum((1, 2, 3))
        outputs: Tensor = self.layers(x) + zeros.sqrt()[:, None]
        return outputs


def endless() -> LoadedModel:
    return _loaded(_Endless())
