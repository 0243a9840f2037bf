"""The CIFAR-10 ResNets of He et al. with parameter-free shortcuts, as models by name.

    moreaugrad explain IMAGE --model benchmarks.cifar_resnet:resnet20 --weights FILE

Layers are named as in the weights of akamaster/pytorch_resnet_cifar10. `resnet20_softplus` is the
same network with a smooth activation; its weights lie in `weights/` and load by themselves.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from moreaugrad.models import LoadedModel, Preprocess

Activation = Callable[[Tensor], Tensor]
SMOOTH_WEIGHTS = Path(__file__).parent / "weights" / "resnet20-softplus-cifar10.safetensors"

LABELS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
IMAGENETTE = (
    "tench", "English springer", "cassette player", "chain saw", "church", "French horn",
    "garbage truck", "gas pump", "golf ball", "parachute",
)  # fmt: skip
PREPROCESS = Preprocess(resize=32, crop=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Block(nn.Module):
    """Two 3 x 3 convolutions; the shortcut subsamples and fills new channels with zeros."""

    def __init__(self, width_in: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.added = stride, (width - width_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, self.added, self.added))
        return self.activation(out + shortcut)


class ResNet(nn.Module):
    """`[B, 3, 32, 32]` to ten logits; `blocks` in each of three stages, 6 * blocks + 2 layers.

    stride: of the first layer, 2 for images of 64 pixels.
    """

    def __init__(self, blocks: int, activation: Activation = F.relu, stride: int = 1) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(3, 16, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(blocks, 16, 16)
        self.layer2 = self._stage(blocks, 16, 32)
        self.layer3 = self._stage(blocks, 32, 64)
        self.linear = nn.Linear(64, 10)

    def _stage(self, blocks: int, width_in: int, width: int) -> nn.Sequential:
        first = Block(width_in, width, width // width_in, self.activation)
        others = (Block(width, width, 1, self.activation) for _ in range(blocks - 1))
        return nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def resnet20() -> LoadedModel:
    return LoadedModel(module=ResNet(3), preprocess=PREPROCESS, labels=LABELS)


def resnet56() -> LoadedModel:
    return LoadedModel(module=ResNet(9), preprocess=PREPROCESS, labels=LABELS)


def resnet20_imagenette() -> LoadedModel:
    """Without weights, for Imagenette at 64 pixels."""
    return LoadedModel(
        module=ResNet(3, stride=2), preprocess=replace(PREPROCESS, resize=64, crop=64),
        labels=IMAGENETTE,
    )  # fmt: skip


def resnet20_softplus() -> LoadedModel:
    """Softplus (beta 1) for ReLU, trained by `train_smooth.py`."""
    module = ResNet(3, F.softplus)
    if SMOOTH_WEIGHTS.is_file():
        module.load_state_dict(load_file(SMOOTH_WEIGHTS))
    return LoadedModel(module=module, preprocess=PREPROCESS, labels=LABELS)
