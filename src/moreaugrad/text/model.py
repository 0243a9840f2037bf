"""A language model with its tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from moreaugrad.score.labels import labels_of
from moreaugrad.text.encoding import Encoded, Sentences, Tokenizer, encode
from moreaugrad.text.reading import LanguageModel
from moreaugrad.text.targets import Classes

LEAST, SLACK = 128, 0.02
"""Rows of a table of token vectors that may be unused, as a number and as a fraction: tables are
padded to round sizes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextModel:
    """What reads texts."""

    language: LanguageModel
    tokenizer: Tokenizer

    @classmethod
    def of(cls, model: object, tokenizer: Any, layer: str | nn.Module | None) -> TextModel:
        """Errors: TypeError or ValueError for what is no model or tokenizer, and for a tokenizer
        with more tokens than the model. Warns of far fewer."""
        if not callable(tokenizer):
            raise TypeError(
                "tokenizer: expected one of transformers, or a function, got "
                f"{type(tokenizer).__name__}"
            )
        language = LanguageModel.of(model, layer)
        _check_vocabulary(tokenizer, language.vocabulary)
        return cls(language=language, tokenizer=tokenizer)

    def encoded(self, sentences: Sentences, name: str, *, truncate: bool, room: int = 0) -> Encoded:
        """A text's tokens. name: of the text, for messages. room: for tokens that follow it.

        Errors: ValueError as `encode`, and for ids that the model does not have.
        """
        found = encode(self.tokenizer, sentences, name, self.language.limit, truncate, room)
        size = self.language.vocabulary
        wrong = [own for own in found.ids if own < 0 or (size is not None and own >= size)]
        if wrong:
            raise ValueError(
                f"{name}: expected ids from 0 to {(size or 0) - 1} of the tokenizer, which the "
                f"model has, got {wrong[0]}: give the model's own tokenizer"
            )
        return found

    def classes(self, first: Encoded, labels: Sequence[str] | None) -> Classes:
        """What can be explained, by the outputs for one text. labels: the user's.

        Errors: ValueError for outputs of other shapes, and for labels that do not fit.
        """
        language = self.language
        further = {name: language.rows([first.further[name]]) for name in self.taken(first)}
        task, count = language.outputs(language.rows([first.ids]), further)
        known = labels_of(language.module)
        return Classes.of(task, count, labels, known, self.tokenizer, language.vocabulary)

    def taken(self, encoded: Encoded) -> list[str]:
        """The further arguments of a text that the model has."""
        return self.language.taken(encoded.further)


def _check_vocabulary(tokenizer: Tokenizer, size: int | None) -> None:
    """Errors: ValueError for a tokenizer with more tokens than the model. Warns of far fewer."""
    if size is None or not hasattr(tokenizer, "convert_ids_to_tokens"):
        return
    own = len(tokenizer)  # type: ignore[arg-type]
    if own > size:
        raise ValueError(
            f"tokenizer: expected at most {size} tokens, the size of the model's vocabulary, got "
            f"one of {own}: give the model's own tokenizer"
        )
    if size - own > max(LEAST, SLACK * size):
        warnings.warn(
            f"tokenizer: it has {own} tokens and the model {size}; is it the model's own?",
            stacklevel=4,
        )
