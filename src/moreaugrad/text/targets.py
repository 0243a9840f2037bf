"""What is explained of each text: a class, a class at a token, the next token, or a phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moreaugrad.registry import choose
from moreaugrad.score.labels import listed
from moreaugrad.settings import expect
from moreaugrad.text.encoding import Encoded, Tokenizer
from moreaugrad.text.reading import Task

TextTarget = int | str | tuple[int | str | None, int | str] | None
"""A class or its label, (class, token), or the phrase that follows; None is the prediction."""


@dataclass(frozen=True, kw_only=True)
class ParsedTarget:
    """The target of one text."""

    index: int | None = None
    """The class; None is the prediction."""
    place: int | None = None
    """The token whose outputs are explained."""
    phrase: tuple[int, ...] = ()
    """The tokens of a phrase of two or more."""
    text: str = ""
    """The phrase."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a model by index and name."""

    task: Task
    count: int
    labels: tuple[str, ...] | None
    """None: they are numbers, or tokens."""
    tokenizer: Tokenizer | None
    """Of classes that are tokens."""

    @classmethod
    def of(
        cls, task: Task, count: int, labels: Sequence[str] | None, known: Any, tokenizer: Tokenizer,
        vocabulary: int | None,
    ) -> Classes:  # fmt: skip
        """labels: the user's. known: the model's own, a dictionary by index.

        Errors: ValueError for labels of another number than the classes'.
        """
        numbers = {count} if count > 1 else {1, 2}
        if labels is not None:
            names = listed(labels)
            expect(len(names) in numbers, "labels", f"one for each of {count} outputs", len(names))
            return cls(task=task, count=count, labels=names, tokenizer=None)
        if task is Task.NEXT or (task is Task.TOKEN and count == vocabulary):
            return cls(task=task, count=count, labels=None, tokenizer=tokenizer)
        own = known if isinstance(known, dict) and len(known) in numbers else None
        carried = None if own is None else tuple(str(own[index]) for index in sorted(own))
        return cls(task=task, count=count, labels=carried, tokenizer=None)

    def read(self, encoded: Encoded) -> Encoded:
        """What the model reads: no special tokens at the end of a text that goes on."""
        return encoded.kept([*range(encoded.own[-1] + 1)]) if self.task is Task.NEXT else encoded

    def room(self, target: object) -> int:
        """How many tokens of a target the model reads after a text: a phrase without its last."""
        if self.task is not Task.NEXT or not isinstance(target, str):
            return 0
        return len(self._tokens(target)) - 1

    def name(self, index: int) -> str:
        """Of a class: its label, its token as text, or its number."""
        if self.labels is not None:
            return self.labels[index] if index < len(self.labels) else str(index)
        decode: Any = getattr(self.tokenizer, "decode", str)
        return str(decode(index if decode is str else [index]))

    def aim(self, target: object, encoded: Encoded) -> ParsedTarget:
        """The target of one text. Errors: TypeError or ValueError for one that does not fit."""
        if self.task is Task.TOKEN:
            if not isinstance(target, tuple) or len(target) != 2:
                shown = ", ".join(f"{at} {encoded.tokens[at]!r}" for at in encoded.own[:8])
                raise ValueError(
                    "target: expected (class, token), on the command line CLASS@TOKEN, the token "
                    "by its number or as a word that occurs once, because the model classifies "
                    f"tokens; got {target!r}. Tokens: {shown}"
                )
            wanted, token = target
            return ParsedTarget(index=self._index(wanted), place=_place(token, encoded))
        if self.task is Task.NEXT and isinstance(target, str):
            phrase = tuple(self._tokens(target))
            index = phrase[0] if len(phrase) == 1 else None
            return ParsedTarget(index=index, phrase=phrase if index is None else (), text=target)
        return ParsedTarget(index=self._index(target))

    def _index(self, wanted: object) -> int | None:
        """The index of a class. Errors: TypeError, ValueError."""
        if wanted is None or (isinstance(wanted, int) and not isinstance(wanted, bool)):
            if wanted is not None:
                most = max(self.count, 2)
                inside = 0 <= wanted < most
                expect(inside, "target", f"a class from 0 to {most - 1}", wanted)
            return wanted
        if not isinstance(wanted, str):
            raise TypeError(
                "target: expected a class, its label, or None for the prediction, got "
                f"{type(wanted).__name__}"
            )
        if self.tokenizer is not None:
            found = self._tokens(wanted)
            expect(len(found) == 1, "target", "a class that is one token", wanted)
            return found[0]
        if self.labels is None:
            raise ValueError(
                f"target: expected a number, because no labels are known, got {wanted!r}: give "
                "labels="
            )
        return self.labels.index(choose("target", wanted, self.labels))

    def _tokens(self, phrase: str) -> list[int]:
        assert self.tokenizer is not None
        names = hasattr(self.tokenizer, "convert_ids_to_tokens")
        settings = {"add_special_tokens": False} if names else {}
        found = Encoded.of((phrase,), self.tokenizer(phrase, **settings), self.tokenizer)
        expect(len(found.own) > 0, "target", "a phrase with at least one token", phrase)
        return [found.ids[at] for at in found.own]


def one_each(target: Any, count: int) -> list[Any]:
    """A target for each text: of a list its entries, otherwise the same one.

    Errors: ValueError for a list of another length.
    """
    listed = target.tolist() if hasattr(target, "tolist") else target
    if not isinstance(listed, list):
        return [listed] * count
    expect(len(listed) == count, "target", f"{count} entries, one for each text", len(listed))
    return listed


def _place(token: object, encoded: Encoded) -> int:
    """The position of a token given by its number or as a word. Errors: ValueError."""
    if isinstance(token, int) and not isinstance(token, bool):
        inside = 0 <= token < len(encoded) and encoded.real[token]
        expect(inside, "target", f"a token from 0 to {len(encoded) - 1}", token)
        return token
    found = [word.tokens[0] for word in encoded.words if word.text == token]
    found = found or [at for at in encoded.own if encoded.tokens[at] == token]
    expect(len(found) == 1, "target", "a word or token that occurs once in its text", token)
    return found[0]
