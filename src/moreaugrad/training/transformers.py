"""Sparse gradients in a training by transformers, as a class to derive a `Trainer` from; and a
callback that watches a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from moreaugrad.extras import required
from moreaugrad.penalties import Penalty
from moreaugrad.training.catalogue import perturbing
from moreaugrad.training.harmonisation import GuidedPenalty
from moreaugrad.training.inner import PerSampleLoss, cross_entropy
from moreaugrad.training.protocol import PerturbingProtocol

Watching = Callable[[nn.Module, int], Mapping[str, float]]
"""Numbers of a model after an epoch, counted from 1; such as `mg.Watch`."""
_BASE: Any = required("transformers", "hf", __name__).TrainerCallback


class WatchCallback(_BASE):  # type: ignore[misc]
    """Calls a watch at the end of each epoch of any `Trainer`, and logs its numbers there.

    >>> from moreaugrad.training.transformers import WatchCallback
    >>> trainer.add_callback(WatchCallback(trainer, mg.Watch(x, y)))

    The training itself stays as it is. trainer: whose `log` is called. watch: of the model and the
    epoch, such as `mg.Watch`.
    """

    def __init__(self, trainer: Any, watch: Watching) -> None:
        self.trainer, self.watch = trainer, watch

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        # A last epoch that `max_steps` ends counts too; its fraction has rounding.
        epoch = math.ceil(state.epoch - 1e-6)
        self.trainer.log(dict(self.watch(given["model"], epoch)))


class SparseGradientsMixin:
    """A `Trainer` that computes its loss at perturbed inputs, or at a layer that is perturbed.

    >>> from moreaugrad.training.transformers import SparseGradientsMixin
    >>> class Sparse(SparseGradientsMixin, Trainer): ...
    >>> trainer = Sparse(model=model, args=args, train_dataset=data, penalty=mg.L1(0.02))

    The loss is the trainer's own: the model's, `compute_loss_func`, or that with label smoothing.
    Evaluation is not perturbed, and at a layer neither is padding (`attention_mask`). Checkpoints
    contain the protocol's state.

    penalty, protocol: a penalty and a protocol's name, or the protocol itself; for token ids it
    needs a `layer`. perturbed_loss: of (logits, labels), `[B]`, what the perturbation raises: the
    trainer's loss for each sample. watch: called at the end of each epoch with the model and the
    epoch, such as `mg.Watch`; its numbers are logged. The other arguments are the trainer's.

    Errors: ValueError for a protocol that cannot be used in this way (`Free` and `Penalised`).
    """

    def __init__(
        self,
        *args: Any,
        penalty: Penalty | GuidedPenalty | None = None,
        protocol: str | PerturbingProtocol = "fast",
        perturbed_loss: PerSampleLoss = cross_entropy,
        watch: Watching | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.protocol, self.perturbed_loss = perturbing(penalty, protocol), perturbed_loss
        self._keep_state()
        if watch is not None:
            trainer: Any = self
            trainer.add_callback(WatchCallback(self, watch))

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The trainer's, at the perturbed inputs while the model trains."""
        own = super().compute_loss  # type: ignore[misc]
        if not model.training:
            return own(model, inputs, *args, **kwargs)
        name = next(iter(getattr(self, "label_names", ())), "labels")
        if name not in inputs:
            raise ValueError(f"inputs: expected labels ({name!r}), got {', '.join(inputs)}")
        labels = inputs[name]
        with self.protocol.perturbed(
            model, {key: value for key, value in inputs.items() if key != name}, labels,
            loss=self.perturbed_loss,
        ) as found:  # fmt: skip
            return own(model, {**found, name: labels}, *args, **kwargs)  # type: ignore[dict-item]

    def _keep_state(self) -> None:
        """Puts the protocol's state into checkpoints, and takes it from the one that is resumed."""
        from transformers import TrainerCallback
        from transformers.trainer_callback import ExportableState

        protocol = self.protocol

        class ProtocolState(TrainerCallback, ExportableState):
            def state(self) -> dict[str, Any]:
                found = {name: value.tolist() for name, value in protocol.state_dict().items()}
                return {"args": {}, "attributes": found}

            def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
                # A checkpoint of a trainer without the mixin has none, and later ones need it.
                found = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
                values = found["attributes"].items()
                protocol.load_state_dict({name: torch.tensor(value) for name, value in values})

        trainer: Any = self
        trainer.add_callback(ProtocolState())
