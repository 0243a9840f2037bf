"""Small trainings: the data, networks, and literal loops that trainers are compared with."""

from __future__ import annotations

import importlib.util
import os
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader

from moreaugrad.models.packages import import_torchvision
from moreaugrad.penalties import L1
from moreaugrad.training import Fast, GaussianNoise

COUNT, CLASSES, RATE = 16, 3, 0.2
PENALTY = L1(0.2)
LAYER = "distilbert.embeddings"
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False,
         "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip


def lightning(name: str = "lightning.pytorch") -> Any:
    """Lightning, which imports torchvision if it is installed; skips without it."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    return pytest.importorskip(name)


def samples(count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Images `[count, 2, 4, 4]` and their classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 2, 4, 4, generator=generator)
    return x, torch.randint(CLASSES, (count,), generator=generator)


def loader(size: int, rows: Any = None) -> DataLoader[Any]:
    """In order, without draws from the global generator."""
    whole = rows or list(zip(*samples(), strict=True))
    return DataLoader(whole, batch_size=size, generator=torch.Generator())


def network(*, plain: bool = False) -> nn.Sequential:
    """With batch normalisation and dropout, or without what depends on how a batch is split."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        between = [] if plain else [nn.BatchNorm2d(4), nn.Dropout(0.3)]
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), *between, nn.SiLU(), nn.Flatten(), nn.Linear(64, CLASSES)
        )


def module(net: nn.Module, pl: Any, step: Callable[..., Tensor] | None = None) -> Any:
    """A LightningModule of the net. step: of (module, batch); the mean cross-entropy if None."""

    class Lit(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.seen: list[float] = []

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if step is not None:
                return step(self, batch)
            x, y = batch
            return cross_entropy(self(x), y)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.seen.append(float(cross_entropy(self(batch[0]), batch[1])))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    return Lit()


def by_hand(
    net: nn.Module,
    adversary: Callable[..., Tensor],
    batches: Iterable[Any],
    *,
    epochs: int = 2,
    amp: bool = False,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> nn.Module:
    """The net after steps of SGD on the mean loss of x_adv = adversary(net, x, y)."""
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
    for _ in range(epochs):
        for x, y in batches:
            net.train()
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                found = loss(net(adversary(net, x, y)), y)
            optimiser.zero_grad()
            found.backward()
            optimiser.step()
    return net


def signed(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """One step of `PENALTY`, by hand."""
    net.eval()
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(net(leaf), y), leaf)
    net.train()
    return x + PENALTY.eta * g.sign()


def mixed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup of a batch with itself, backwards: the inputs, and probabilities of the classes."""
    soft = one_hot(y, CLASSES).float()
    return 0.7 * x + 0.3 * x.flip(0), 0.7 * soft + 0.3 * soft.flip(0)


def same(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> bool:
    """Whether all weights and statistics are equal."""
    pairs = list(zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


def reader(transformers: Any, *, dropout: float = 0.0) -> Any:
    """A DistilBERT of 3 classes with random weights."""
    config = transformers.DistilBertConfig(
        vocab_size=30, dim=8, n_layers=1, n_heads=2, hidden_dim=12, max_position_embeddings=12,
        num_labels=CLASSES, dropout=dropout, attention_dropout=dropout, seq_classif_dropout=dropout,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(2)
        found = transformers.DistilBertForSequenceClassification(config)
        with torch.no_grad():
            for weight in found.parameters():
                weight.add_(torch.randn(weight.shape) * 0.2)
    return found


def texts(count: int = 8) -> list[dict[str, Tensor]]:
    """Token ids, half of the texts with padding."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 30, (count, 6), generator=generator)
    mask = torch.ones(count, 6, dtype=torch.long)
    mask[::2, 4:] = 0
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return [
        {"input_ids": i * m, "attention_mask": m, "labels": label}
        for i, m, label in zip(ids, mask, labels, strict=True)
    ]


def joined(rows: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    """One batch: the model's arguments, and the labels."""
    whole = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return whole, whole.pop("labels")


def arguments(transformers: Any, folder: Path, **further: Any) -> Any:
    """Of a quiet training by SGD on the CPU, in order."""
    return transformers.TrainingArguments(
        str(folder), use_cpu=True, report_to=[], disable_tqdm=True,
        optim="sgd", learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0.0,
        train_sampling_strategy="sequential", logging_strategy="no",
        **{"num_train_epochs": 2, "per_device_train_batch_size": 4, "save_strategy": "no",
           **further},
    )  # fmt: skip


def in_process(rank: int, port: str, folder: Path) -> None:
    """One of two processes that share batches; saves weights, or writes why it failed."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "USE_LIBUV": "0",
    }  # fmt: skip
    try:
        found = {**_lit(rank), **_ddp(rank), **_accelerated(), **_read(folder)}
    except BaseException:
        (folder / f"failed-{rank}").write_text(traceback.format_exc())
        raise
    torch.save(found, folder / f"weights-{rank}.pt")


def _lit(rank: int) -> dict[str, Any]:
    pl = lightning()
    from moreaugrad.training.lightning import SparseGradients

    found = {}
    for name, protocol in {"lightning": Fast(PENALTY), "noise": GaussianNoise(0.5)}.items():
        lit = module(network(plain=True), pl)
        trainer = pl.Trainer(
            **QUIET, max_epochs=2, devices=2, strategy="ddp", use_distributed_sampler=False,
            callbacks=[SparseGradients(protocol=protocol)],
        )  # fmt: skip
        trainer.fit(lit, loader(4, list(zip(*samples(), strict=True))[rank::2]))
        found[name] = lit.net.state_dict()
    return found


def _ddp(rank: int) -> dict[str, Any]:
    """Lightning has made the group of processes."""
    from moreaugrad.training import Free, Penalised

    x, y = (part.chunk(2)[rank] for part in samples())
    found = {}
    for name, protocol in {
        "fast": Fast(PENALTY), "free": Free(PENALTY, replays=2), "penalised": Penalised(PENALTY),
    }.items():  # fmt: skip
        net = network(plain=True)
        # Unused weights and further passes are what this wrapper would trip over.
        wrapped = nn.parallel.DistributedDataParallel(net, find_unused_parameters=True)
        optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
        for _ in range(2):
            for found_round in protocol.rounds(wrapped, x, y):
                optimiser.zero_grad()
                found_round.loss.mean().backward()
                optimiser.step()
        found[name] = net.state_dict()
    return found


def _accelerated() -> dict[str, Any]:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    net = network(plain=True)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
    model, optimiser, batches = accelerator.prepare(net, optimiser, loader(4))
    adversary = Fast(PENALTY)
    for _ in range(2):
        for x, y in batches:
            x_adv = adversary(model, x, y)
            optimiser.zero_grad()
            accelerator.backward(cross_entropy(model(x_adv), y))
            optimiser.step()
    return {"accelerate": net.state_dict()}


def _read(folder: Path) -> dict[str, Any]:
    from text_models import hugging_face

    transformers = hugging_face()
    from moreaugrad.training.transformers import SparseGradientsMixin

    model = reader(transformers)

    class Sparse(SparseGradientsMixin, transformers.Trainer):
        pass

    # DistilBERT's loss is a mean, which transformers cannot know.
    args = arguments(
        transformers, folder, per_device_train_batch_size=2, average_tokens_across_devices=False
    )
    Sparse(
        model=model, args=args, train_dataset=texts(), protocol=Fast(PENALTY, layer=LAYER)
    ).train()
    return {"transformers": model.state_dict()}
