"""Language models as a batched function of token ids to `[B, K]`, of which a class is explained."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.files.foreign import some
from moreaugrad.score.forward import forward
from moreaugrad.score.hooks import hooked, name_of, resolve
from moreaugrad.score.outputs import tensor_output
from moreaugrad.score.precision import log_probability


class Task(Enum):
    """What a model's outputs are about."""

    TEXT = "text"
    """The whole text: `[B, K]`."""
    TOKEN = "token"
    """Each token: `[B, L, K]`."""
    NEXT = "next token"
    """The token that follows each token: `[B, L, K]`, K the vocabulary."""


PHRASE = "phrase"
PLACE = "place"


class Reader(nn.Module):
    """A model's outputs for what is explained, `[B, K]`.

    Of token outputs those at `place` `[B]`; of outputs for the next token the last ones, or the
    score of the `phrase` `[B, T]` whose tokens, without the last, end the ids. Its modules have the
    names that they have in the model.
    """

    def __init__(
        self, model: nn.Module, task: Task, names: Sequence[str] = (), kind: str = "logit"
    ) -> None:
        """names: of the further arguments, in their order; PLACE and PHRASE are not the model's.
        kind: of a phrase's score."""
        super().__init__()
        self.model, self.task, self.names, self.kind = model, task, tuple(names), kind
        self.fixed = {"use_cache": False} if "use_cache" in arguments(model) else {}
        self.training = model.training
        needed = [name for name, one in _parameters(model).items() if one.default is one.empty]
        self.ones = [name for name in MASKS if name in needed and name not in names]

    def named_modules(self, *args: Any, **named: Any) -> Iterator[tuple[str, nn.Module]]:
        yield from self.model.named_modules(*args, **named)

    def forward(self, ids: Tensor, *further: Tensor) -> Tensor:
        named = dict(zip(self.names, further, strict=True))
        place, phrase = named.pop(PLACE, None), named.pop(PHRASE, None)
        named |= {name: torch.ones_like(ids) for name in self.ones}
        outputs = tensor_output(self.model(ids, **named, **self.fixed))
        if self.task is Task.TEXT:
            return outputs
        if place is not None:
            return outputs[torch.arange(len(ids), device=ids.device), place]
        if phrase is None:
            return outputs[:, -1]
        table = outputs[:, -phrase.shape[1] :].movedim(2, 1)  # [B, K, T]
        if self.kind == "logit":
            return table.gather(1, phrase[:, None]).sum((1, 2))[:, None]
        found = log_probability(table.float(), phrase).sum(1, keepdim=True)
        return found.exp() if self.kind == "probability" else found


MASKS = ("attention_mask",)
"""Arguments that are 1 at real tokens, where a model needs them and none are given."""


def arguments(model: nn.Module) -> list[str]:
    """The names of a module's arguments."""
    return list(_parameters(model))


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model.forward).parameters


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """A module, and what can be known of it as a model of text."""

    module: nn.Module
    layer: nn.Module
    """Whose output `[B, L, D]` is explained."""

    @classmethod
    def of(cls, module: object, layer: str | nn.Module | None) -> LanguageModel:
        """Errors: TypeError for what is no module, ValueError where no embedding is found."""
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"model: expected a torch module or a pipeline, got {type(module).__name__}; "
                "transformers.AutoModelForSequenceClassification.from_pretrained(folder) loads one"
            )
        if layer is not None:
            return cls(module=module, layer=resolve(module, layer))
        tables = _embeddings(module)
        if len(tables) != 1:
            raise ValueError(
                "layer: expected a model with one nn.Embedding, whose output is explained, got "
                f"{', '.join(tables) or 'none'}: give layer="
            )
        return cls(module=module, layer=next(iter(tables.values())))

    @property
    def layer_name(self) -> str:
        return name_of(self.module, self.layer)

    @property
    def device(self) -> torch.device:
        return next((weight.device for weight in self.module.parameters()), torch.device("cpu"))

    @property
    def config(self) -> Any:
        return getattr(self.module, "config", None)

    @cached_property
    def vocabulary(self) -> int | None:
        """Number of its token ids, where that is known."""
        if isinstance(self.layer, nn.Embedding):
            return self.layer.num_embeddings
        sizes = {table.num_embeddings for table in _embeddings(self.module).values()}
        return sizes.pop() if len(sizes) == 1 else None

    @cached_property
    def limit(self) -> int | None:
        """Number of tokens that it takes, where that is known."""
        for name, module in self.module.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                padding = module.padding_idx  # RoBERTa counts positions from the one after it
                return module.num_embeddings - (0 if padding is None else padding + 1)
        most = getattr(self.config, "max_position_embeddings", None)
        return most if isinstance(most, int) and most > 0 else None

    def rows(self, values: Sequence[Any]) -> Tensor:
        """Integers of each text as a tensor on the model's device."""
        return torch.tensor(values, dtype=torch.long, device=self.device)

    def taken(self, further: Mapping[str, list[int]]) -> list[str]:
        """The further arguments that it has; all, where it passes on any (torch.compile)."""
        known = _parameters(self.module)
        any_name = any(one.kind is one.VAR_KEYWORD for one in known.values())
        return [name for name in further if any_name or name in known]

    def outputs(self, ids: Tensor, further: Mapping[str, Tensor]) -> tuple[Task, int]:
        """What its outputs for one text, ids `[1, L]`, are about, and K.

        Errors: ValueError for outputs of other shapes.
        """
        seen: list[Any] = []
        with torch.no_grad(), hooked({}, {self.layer: lambda *given: seen.append(given[2])}):
            ones = Reader(self.module, Task.TEXT, list(further)).ones
            given = {**further, **{name: torch.ones_like(ids) for name in ones}}
            shape = tuple(forward(partial(self.module, **given), ids).shape)
        if len(seen) != 1:
            others = _tables(self.module)
            raise ValueError(
                "layer: expected a module that runs once in a forward pass, but "
                f"{self.layer_name!r} ran {len(seen)} times: give layer=, such as "
                f"{some([name for name, part in others.items() if part is not self.layer])}"
            )
        for output in seen:
            if isinstance(output, Tensor) and (output.ndim != 3 or output.shape[:2] != ids.shape):
                raise ValueError(
                    f"layer: expected a module whose output is [B, {ids.shape[1]}, D], a vector "
                    f"for each token, got {['B', *output.shape[1:]]}"
                )
        if len(shape) < 3:
            return Task.TEXT, shape[-1] if len(shape) == 2 else 1
        if len(shape) != 3 or shape[1] != ids.shape[1]:
            raise ValueError(
                f"model: expected outputs [B, K], or [B, {ids.shape[1]}, K] with an entry for each "
                f"token, got {['B', *shape[1:]]}"
            )
        generates: Any = getattr(self.module, "can_generate", None)
        following = shape[2] == self.vocabulary if generates is None else generates()
        return (Task.NEXT if following else Task.TOKEN), shape[2]


def _embeddings(module: nn.Module) -> dict[str, nn.Embedding]:
    """The table of token ids by its name, or all tables where it is not known which that is."""
    own: Any = getattr(module, "get_input_embeddings", None)
    found = own() if own is not None else None
    tables = _tables(module)
    return {name: part for name, part in tables.items() if found is None or part is found}


def _tables(module: nn.Module) -> dict[str, nn.Embedding]:
    return {name: part for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
