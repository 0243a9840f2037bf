"""Trains the classifier of synthetic cells that the package carries.

    python benchmarks/train_builtin.py --out src/moreaugrad/weights/builtin.safetensors

Training, validation and demonstration cells have seeds of their own. The network trains with
batch normalisation, which is folded into its convolutions before it is saved, on images that
are flipped, turned by right angles and disturbed by noise, so that the score averaged over noisy
copies, which most explanations use, stays that of a good classifier. The same settings on the
same machine give the same file. A `.partial` file holds the state after each epoch until the end.
`train_elastic_net.py` makes its sibling of it, by the package's own command.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import Progress, track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from moreaugrad.data.cells import Cells
from moreaugrad.models import LoadedModel, Preprocess
from moreaugrad.models.sources import MEAN, SIZE, STD, CellClassifier

TRAIN_SEED, VALIDATION_SEED = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """`noise`: largest standard deviation of the disturbance, in units of the pixel range."""

    train_count: int = 32768
    validation_count: int = 4096
    epochs: int = 20
    batch: int = 64
    rate: float = 4e-3
    weight_decay: float = 0.05
    noise: float = 0.15
    label_smoothing: float = 0.02
    seed: int = 0


def pictures(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Cells as bytes `[count, 3, SIZE, SIZE]`, to save memory, and labels `[count]`."""
    cells = Cells(size=SIZE, seed=seed, count=count)
    images = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.long)
    for index in track(range(count), f"cells of seed {seed}"):
        image, label, _ = cells[index]
        images[index], labels[index] = (image * 255).round(), label
    return images, labels


def normalise(images: Tensor) -> Tensor:
    shape = (3, 1, 1)
    return (images - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)


def with_batchnorm(module: nn.Module) -> nn.Module:
    """Each convolution followed by a batch normalisation, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, nn.Sequential(child, nn.BatchNorm2d(child.out_channels)))
        else:
            with_batchnorm(child)
    return module


def network() -> LoadedModel:
    """What trains here, fresh, by the name `benchmarks.train_builtin:network`."""
    preprocess = Preprocess(resize=SIZE, crop=SIZE, mean=MEAN, std=STD)
    return LoadedModel(module=with_batchnorm(CellClassifier()), preprocess=preprocess, labels=None)


def folded(state: dict[str, Tensor]) -> CellClassifier:
    """The plain network that equals the trained one in evaluation mode."""
    trained = with_batchnorm(CellClassifier())
    trained.load_state_dict(state)
    trained.eval()

    def fold(module: nn.Module) -> None:
        for name, child in module.named_children():
            pair = list(child.children())
            if len(pair) == 2 and isinstance(pair[1], nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(pair[0], pair[1]))
            else:
                fold(child)

    fold(trained)
    plain = CellClassifier()
    plain.load_state_dict(trained.state_dict())
    return plain.eval()


def batches(
    images: Tensor, labels: Tensor, settings: Settings, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled, flipped or turned, disturbed batches."""
    for rows in torch.randperm(len(images), generator=generator).split(settings.batch):
        if len(rows) < settings.batch:
            return
        turn = int(torch.randint(8, (), generator=generator))
        x = torch.rot90(images[rows], turn % 4, (2, 3)).float() / 255
        x = x.flip(3) if turn >= 4 else x
        level = torch.rand(len(x), 1, 1, 1, generator=generator) * settings.noise
        x = x + level * torch.randn(x.shape, generator=generator)
        yield normalise(x).contiguous(memory_format=torch.channels_last), labels[rows]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, noise: float = 0.0) -> float:
    generator = torch.Generator().manual_seed(0)
    right = 0
    for x, y in zip(images.split(256), labels.split(256), strict=True):
        x = x.float() / 255
        x = x + noise * torch.randn(x.shape, generator=generator)
        right += int((model(normalise(x)).argmax(1) == y).sum())
    return right / len(labels)


def train(settings: Settings, out: Path) -> None:
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(settings.seed)
    images, labels = pictures(TRAIN_SEED, settings.train_count)
    held_out = pictures(VALIDATION_SEED, settings.validation_count)
    model = with_batchnorm(CellClassifier()).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
    )
    steps = settings.epochs * (len(images) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.rate, total_steps=steps, pct_start=0.15
    )
    partial = out.with_name(out.name + ".partial")
    with Progress() as progress:
        task = progress.add_task("training", total=steps)
        for epoch in range(1, settings.epochs + 1):
            model.train()
            total = 0.0
            for x, y in batches(images, labels, settings, generator):
                loss = nn.functional.cross_entropy(
                    model(x), y, label_smoothing=settings.label_smoothing
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += float(loss.detach())
                progress.advance(task)
            plain = folded(model.state_dict())
            clean, noisy = accuracy(plain, *held_out), accuracy(plain, *held_out, noise=0.1)
            mean = total / (len(images) // settings.batch)
            progress.print(
                f"epoch {epoch}: loss {mean:.4f}, validation accuracy {clean:.4f}, "
                f"under noise of 0.1: {noisy:.4f}"
            )
            metadata = {
                "settings": json.dumps(dataclasses.asdict(settings)),
                "epoch": str(epoch),
                "validation_accuracy": f"{clean:.4f}",
                "validation_accuracy_noise_0.1": f"{noisy:.4f}",
                "torch": torch.__version__,
            }
            state = {name: value.contiguous() for name, value in plain.state_dict().items()}
            save_file(state, partial, metadata=metadata)
    partial.replace(out)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)")


def main(
    out: Annotated[Path, typer.Option(help="the safetensors file to write")],
    train_count: int = Settings.train_count,
    validation_count: int = Settings.validation_count,
    epochs: int = Settings.epochs,
    batch: int = Settings.batch,
    rate: float = Settings.rate,
    weight_decay: float = Settings.weight_decay,
    noise: float = Settings.noise,
    label_smoothing: float = Settings.label_smoothing,
    seed: int = Settings.seed,
) -> None:
    """Train the built-in classifier of synthetic cells."""
    train(
        Settings(
            train_count=train_count,
            validation_count=validation_count,
            epochs=epochs,
            batch=batch,
            rate=rate,
            weight_decay=weight_decay,
            noise=noise,
            label_smoothing=label_smoothing,
            seed=seed,
        ),
        out,
    )


if __name__ == "__main__":
    typer.run(main)
