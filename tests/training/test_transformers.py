"""transformers' Trainer at a perturbed layer or input: equal to a loop of one's own."""

import importlib
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from moreaugrad.penalties import ElasticNet
from moreaugrad.training import Fast, Free, GaussianNoise, PerSampleLoss
from moreaugrad.training import cross_entropy as default
from text_models import hugging_face
from trained import LAYER, PENALTY, RATE, arguments, joined, mixed, reader, same, texts

pytest.importorskip("accelerate")
transformers = hugging_face()
# Only after transformers, which needs torchvision's operators where it is installed.
from moreaugrad.training.transformers import SparseGradientsMixin, WatchCallback  # noqa: E402


class Sparse(SparseGradientsMixin, transformers.Trainer):
    loss_is_scaled_for_ga = False  # DistilBERT's loss is a mean, which transformers cannot know


def protocol() -> Fast:
    return Fast(PENALTY, layer=LAYER)


def trained(
    model: Any, folder: Path, *, given: dict[str, Any] | None = None, **further: Any
) -> Any:
    given = {"protocol": protocol(), **(given or {})}
    args = arguments(transformers, folder, **further)
    trainer = Sparse(model=model, args=args, train_dataset=texts(), **given)
    trainer.train()
    return trainer


def by_hand(
    model: Any, size: int, *, loss: PerSampleLoss = default, amp: bool = False, squares: float = 0.0
) -> Any:
    """Of the literal kind: embedding, sign of the gradient, the rest of the network. squares: the
    elastic net's second weight."""
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    rows = texts()
    for _ in range(2):
        for at in range(0, len(rows), size):
            inputs, y = joined(rows[at : at + size])
            mask = inputs["attention_mask"]
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                model.eval()
                vectors = model.distilbert.embeddings(inputs["input_ids"]).detach()
                leaf = vectors.requires_grad_()
                values = loss(rest(model, leaf, mask).float(), y)
                (g,) = torch.autograd.grad(values.sum(), leaf)
                delta = (PENALTY.eta * g.sign() + 2 * squares * g) * mask[..., None]
                model.train()
                moved = model.distilbert.embeddings(inputs["input_ids"]) + delta
                total = loss(rest(model, moved, mask).float(), y).mean()
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
    return model


def rest(model: Any, vectors: Tensor, mask: Tensor) -> Tensor:
    """Of DistilBERT after its embedding."""
    whole = mask[:, None, None, :].bool().expand(-1, 1, mask.shape[1], -1)
    hidden = vectors
    for block in model.distilbert.transformer.layer:
        hidden = block(hidden, whole)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    pooled = torch.relu(model.pre_classifier(hidden[:, 0]))
    return model.classifier(pooled)


def test_it_equals_a_literal_loop(tmp_path: Path) -> None:
    model = reader(transformers)
    trained(model, tmp_path)
    assert same(model, by_hand(reader(transformers), 4), 1e-4)
    plain = reader(transformers)
    trained(plain, tmp_path, given={"protocol": Fast(PENALTY.__class__(0.0), layer=LAYER)})
    assert not same(model, plain, 1e-3)


def test_accumulated_batches_equal_a_large_one(tmp_path: Path) -> None:
    model = reader(transformers)
    trained(model, tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert same(model, by_hand(reader(transformers), 4), 1e-4)


def test_mixed_precision(tmp_path: Path) -> None:
    model = reader(transformers)
    trained(model, tmp_path, bf16=True)
    assert same(model, by_hand(reader(transformers), 4, amp=True), 0.02)
    assert not same(model, by_hand(reader(transformers), 4), 1e-5)


def test_label_smoothing_of_the_trainer(tmp_path: Path) -> None:
    loss = partial(cross_entropy, label_smoothing=0.3, reduction="none")
    model = reader(transformers)
    trained(model, tmp_path, given={"perturbed_loss": loss}, label_smoothing_factor=0.3)
    assert same(model, by_hand(reader(transformers), 4, loss=loss), 1e-4)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_class_weights_by_a_loss_of_ones_own(tmp_path: Path, accumulated: int) -> None:
    """The perturbation depends on a sample's weight with the elastic net."""
    weighted = partial(cross_entropy, weight=torch.tensor([0.1, 1.0, 4.0]))

    def own(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
        return weighted(outputs.logits, labels, reduction="sum") / num_items_in_batch

    class Scaled(Sparse):
        loss_is_scaled_for_ga = None

    model, loss = reader(transformers), partial(weighted, reduction="none")
    given = {"protocol": Fast(ElasticNet(PENALTY.eta, 0.5), layer=LAYER), "perturbed_loss": loss}
    args = arguments(
        transformers, tmp_path, per_device_train_batch_size=4 // accumulated,
        gradient_accumulation_steps=accumulated,
    )  # fmt: skip
    Scaled(model, args, train_dataset=texts(), compute_loss_func=own, **given).train()
    assert same(model, by_hand(reader(transformers), 4, loss=loss, squares=0.5), 1e-4)
    assert not same(model, by_hand(reader(transformers), 4, loss=loss), 1e-3)


def test_a_compiled_text_model(tmp_path: Path) -> None:
    """Passes with a perturbed layer run uncompiled."""
    model = reader(transformers)
    trained(model, tmp_path, torch_compile=True, torch_compile_backend="eager")
    assert same(model, by_hand(reader(transformers), 4), 1e-4)


def test_evaluation_is_not_perturbed(tmp_path: Path) -> None:
    model = reader(transformers)
    args = arguments(transformers, tmp_path, per_device_eval_batch_size=8)
    trainer = Sparse(model=model, args=args, eval_dataset=texts(), protocol=protocol())
    inputs, y = joined(texts())
    with torch.no_grad():
        expected = float(model.eval()(**inputs, labels=y).loss)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_dropout_stays_that_of_the_training(tmp_path: Path) -> None:
    """The passes for the perturbation draw nothing, so the training's own masks are the same."""
    drawn: list[list[Tensor]] = []
    for weight in (0.0, 0.2):
        model, seen = reader(transformers, dropout=0.4), []

        def keep(module: nn.Module, args: Any, output: Tensor, seen: Any = seen) -> None:
            if module.training:
                seen.append(output == 0)

        model.dropout.register_forward_hook(keep)
        given = {"protocol": Fast(type(PENALTY)(weight), layer=LAYER)}
        trained(model, tmp_path, given=given, num_train_epochs=1)
        drawn.append(seen)
    assert len(drawn[0]) == 2
    # ReLU's zeros before the dropout differ, so the masks are compared where neither has any.
    assert all(float((a == b).double().mean()) > 0.8 for a, b in zip(*drawn, strict=True))


class Pixels(nn.Module):
    """A model of images, as transformers has them."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.head = nn.Linear(12, 3)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(pixel_values.flatten(1))
        found = Output(logits=logits)
        if labels is not None:
            found["loss"] = cross_entropy(logits, labels)
        return found


class Output(dict[str, Tensor]):
    @property
    def logits(self) -> Tensor:
        return self["logits"]


def pixels() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 3, 2, 2, generator=generator), torch.arange(8) % 3
    return [{"pixel_values": a, "labels": b} for a, b in zip(x, y, strict=True)]


def mixing(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    x, y = mixed(*(torch.stack([row[name] for row in rows]) for name in rows[0]))
    return {"pixel_values": x, "labels": y}


@pytest.mark.parametrize("form", ["plain", "mixed", "compiled"])
def test_images_need_no_layer(tmp_path: Path, form: str) -> None:
    further = (
        {"torch_compile": True, "torch_compile_backend": "eager"} if form == "compiled" else {}
    )
    collator = {"data_collator": mixing} if form == "mixed" else {}
    model, own, rows = Pixels(), Pixels(), pixels()
    torch._dynamo.utils.counters.clear()
    args = arguments(transformers, tmp_path, **further)
    Sparse(model, args, train_dataset=rows, penalty=PENALTY, **collator).train()
    assert (torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0) == (form == "compiled")
    optimiser = torch.optim.SGD(own.parameters(), lr=RATE)
    for _ in range(2):
        for part in (rows[:4], rows[4:]):
            batch = mixing(part) if form == "mixed" else transformers.default_data_collator(part)
            x, y = batch["pixel_values"], batch["labels"]
            leaf = x.clone().requires_grad_()
            (g,) = torch.autograd.grad(own(leaf, y)["loss"], leaf)
            optimiser.zero_grad()
            own(x + PENALTY.eta * g.sign(), y)["loss"].backward()
            optimiser.step()
    assert same(model, own, 1e-5)


@pytest.mark.parametrize("restored", [False, True])
def test_a_resumed_training_goes_on_with_its_noise(tmp_path: Path, restored: bool) -> None:
    args = arguments(
        transformers, tmp_path, save_strategy="epoch",
        restore_callback_states_from_checkpoint=restored,
    )  # fmt: skip

    def run(kind: type = Sparse, **resumed: Any) -> Any:
        given = {"protocol": GaussianNoise(0.5)} if kind is Sparse else {}
        trainer = kind(model=Pixels(), args=args, train_dataset=pixels(), **given)
        trainer.train(**resumed)
        return trainer

    whole = run().model
    resumed = run(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same(whole, resumed.model)
    assert resumed.protocol.tally.calls == 4
    run(transformers.Trainer)  # whose checkpoints know nothing of a protocol
    other = run(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert other.protocol.tally.calls == 2


@pytest.mark.parametrize("sparse", [True, False])
def test_the_figures_of_a_watch_are_logged(tmp_path: Path, sparse: bool) -> None:
    """By the mixin, and by the callback of a training that stays as it is."""
    seen = []

    def watch(model: nn.Module, epoch: int) -> dict[str, float]:
        seen.append(deepcopy(model))
        return {"watch/gini": epoch / 10}

    model, other = reader(transformers), reader(transformers)
    if sparse:
        trainer = trained(model, tmp_path, given={"watch": watch})
        trained(other, tmp_path)
    else:
        args = arguments(transformers, tmp_path)
        trainer, plain = (
            transformers.Trainer(each, args, train_dataset=texts()) for each in (model, other)
        )
        trainer.add_callback(WatchCallback(trainer, watch))
        trainer.train()
        plain.train()
    log = trainer.state.log_history
    logged = {entry["step"]: entry["watch/gini"] for entry in log if "watch/gini" in entry}
    assert logged == {2: 0.1, 4: 0.2}
    assert same(seen[1], model)
    assert same(model, other)


def test_an_epoch_that_a_number_of_steps_ends_counts(tmp_path: Path) -> None:
    """An epoch has two steps here."""
    epochs: list[int] = []

    def watch(_: nn.Module, epoch: int) -> dict[str, float]:
        epochs.append(epoch)
        return {}

    trained(reader(transformers), tmp_path, given={"watch": watch}, max_steps=3)
    assert epochs == [1, 2]


def test_without_transformers_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "moreaugrad.training.transformers"
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=rf"{name}.*moreaugrad\[hf\]"):
        importlib.import_module(name)


def test_what_cannot_work_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Free.*rounds"):
        trained(reader(transformers), tmp_path, given={"protocol": Free(PENALTY)})
    with pytest.raises(ValueError, match=r"layer="):
        trained(reader(transformers), tmp_path, given={"protocol": Fast(PENALTY)})
    rows = [{k: v for k, v in row.items() if k != "labels"} for row in texts()]
    args = arguments(transformers, tmp_path)
    trainer = Sparse(model=reader(transformers), args=args, train_dataset=rows, protocol=protocol())
    with pytest.raises(ValueError, match="labels"):
        trainer.train()
