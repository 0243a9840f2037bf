"""From a text to token ids: what a tokenizer says of it, and the words of its tokens."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from typing import Any, NamedTuple, Self
from unicodedata import category

from moreaugrad.registry import first_line

Tokenizer = Callable[..., Any]
"""Of transformers, or a function from a text to its token ids."""
Sentences = tuple[str, ...]
"""A text, or the two of a pair."""
Span = tuple[int, int]

WORD = re.compile(r"\w+(?:['’-]\w+)*|\s+|[^\w\s]")
"""A word, also with an apostrophe or a hyphen in it, white space, or one other character."""
JOINERS = "\u200c\u200d"
"""Characters without width between letters of a word."""


def _without_marks(text: str) -> str:
    """With the character before it in place of each accent, vowel sign and joiner: `WORD` knows
    none of them as a part of a word."""
    found: list[str] = []
    for letter in text:
        joined = found and (category(letter).startswith("M") or letter in JOINERS)
        found.append(found[-1] if joined else letter)
    return "".join(found)


class Word(NamedTuple):
    """A word, a punctuation mark, or white space that has tokens of its own.

    >>> found = mg.text.Word("film", 0, 2, 6, (2,))
    """

    text: str
    """As it is written."""
    sentence: int
    """0, or 1 in the second sentence of a pair."""
    start: int
    """Its first character in the sentence."""
    end: int
    """The character after its last."""
    tokens: tuple[int, ...]
    """The indices of its tokens."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One text as the model reads it. Lists have an entry for each position."""

    sentences: Sentences
    ids: list[int]
    further: Mapping[str, list[int]]
    """Other arguments of the model by name, such as "attention_mask"."""
    tokens: list[str]
    spans: list[Span | None]
    """Characters in the sentence, from the first to the one after the last; None: not known."""
    sentence: list[int]
    special: list[bool]
    """Whether the tokenizer added it, as [CLS]."""
    real: list[bool]
    """False at padding."""
    note: str = ""
    """What was left out."""

    @classmethod
    def of(cls, sentences: Sentences, found: Any, tokenizer: Tokenizer) -> Self:
        """From what a tokenizer returns for one text: ids, or a mapping with the names of
        transformers. Errors: TypeError or ValueError for anything else."""
        table = found if isinstance(found, Mapping) else {"input_ids": found}
        if "input_ids" not in table:
            raise ValueError(
                f"tokenizer: expected token ids, or a mapping with input_ids, got {list(table)}"
            )
        ids = _integers("input_ids", table["input_ids"])

        def column(name: str, otherwise: int) -> list[int]:
            values = _integers(name, table[name]) if name in table else [otherwise] * len(ids)
            if len(values) != len(ids):
                raise ValueError(
                    f"tokenizer: expected {len(ids)} numbers in {name}, one for each id, got "
                    f"{len(values)}"
                )
            return values

        fast = getattr(found, "is_fast", False)
        named: Any = found.sequence_ids() if fast else table.get("sequence_ids")
        sentence = list(accumulate(named or [0] * len(ids), _carried, initial=0))[1:]
        spans: list[Span | None] = [None] * len(ids)
        for at, (start, end) in enumerate(table.get("offset_mapping") or ()):
            spans[at] = _span(int(start), int(end), sentences[sentence[at]])
        special = [bool(own) for own in column("special_tokens_mask", 0)]
        names: Any = getattr(tokenizer, "convert_ids_to_tokens", None)
        tokens = table.get("tokens") or (names(ids) if names else None)
        return cls(
            sentences=sentences,
            ids=ids,
            further={name: column(name, 0) for name in FURTHER if name in table},
            tokens=[
                str(id_) if span is None else sentences[at][slice(*span)]
                for id_, span, at in zip(ids, spans, sentence, strict=True)
            ]
            if tokens is None
            else list(tokens),
            spans=[None if own else span for own, span in zip(special, spans, strict=True)],
            sentence=sentence,
            special=special,
            real=[bool(own) for own in column("attention_mask", 1)],
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def own(self) -> list[int]:
        """The positions of the text's own tokens: neither special nor padding."""
        return [at for at, real in enumerate(self.real) if real and not self.special[at]]

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The words that have tokens, in the order of the tokens; none without offsets.

        A token belongs to the word of its first character.
        """
        places = [
            [word.span() for word in WORD.finditer(_without_marks(text))] for text in self.sentences
        ]
        found: dict[tuple[int, int, int], list[int]] = {}
        for at in self.own:
            span, number = self.spans[at], self.sentence[at]
            if span is None:
                return ()
            before = bisect_right(places[number], span[0], key=itemgetter(0)) - 1
            place = places[number][before] if before >= 0 else span
            inside = place if span[0] < place[1] else span
            found.setdefault((number, *inside), []).append(at)
        return tuple(
            Word(self.sentences[number][start:end], number, start, end, tuple(tokens))
            for (number, start, end), tokens in found.items()
        )

    def kept(self, places: list[int]) -> Self:
        """The same at some of its positions."""

        def some(values: list[Any]) -> list[Any]:
            return [values[at] for at in places]

        names = ("ids", "tokens", "spans", "sentence", "special", "real")
        lists: dict[str, Any] = {name: some(getattr(self, name)) for name in names}
        further = {name: some(values) for name, values in self.further.items()}
        return replace(self, further=further, **lists)

    def followed_by(self, phrase: tuple[int, ...]) -> tuple[list[int], dict[str, list[int]]]:
        """The ids and the further arguments with a phrase after the text."""
        more = len(phrase)
        further = {name: column + column[-1:] * more for name, column in self.further.items()}
        return [*self.ids, *phrase], further


FURTHER = ("attention_mask", "token_type_ids")
"""What a tokenizer returns that models may take, besides the ids."""


def _carried(before: int, number: int | None) -> int:
    """The sentence of a token; a special one belongs to that before it."""
    return before if number is None else number


def _integers(name: str, values: Any) -> list[int]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(listed, (list, tuple)) or not all(type(item) is int for item in listed):
        raise TypeError(
            f"tokenizer: expected {name} of one text as a list or a tensor of integers [L], got "
            f"{str(values)[:60]}"
        )
    return list(listed)


def _span(start: int, end: int, sentence: str) -> Span:
    """A token's characters without white space before them, unless it is nothing else."""
    shown = sentence[start:end]
    return (start + len(shown) - len(shown.lstrip()), end) if shown.strip() else (start, end)


def encode(
    tokenizer: Tokenizer, sentences: Sentences, name: str, limit: int | None, truncate: bool,
    room: int,
) -> Encoded:  # fmt: skip
    """A text's token ids. name: of the text, for messages. limit: tokens that the model takes.
    room: how many of them are for what follows the text.

    Errors: ValueError for a text that is empty or too long, and for a tokenizer that fails.
    """
    found = _called(tokenizer, sentences)
    most = getattr(tokenizer, "model_max_length", None)  # a huge number where it is not known
    limit = min((own for own in (limit, most) if own is not None), default=None)
    limit = None if limit is None else max(0, limit - room)
    if limit is not None and len(found) > limit:
        if not (truncate and hasattr(tokenizer, "convert_ids_to_tokens")):
            raise ValueError(
                f"{name}: expected at most {limit} tokens, which the model takes"
                f"{f' with the {room} of a phrase before its last' if room else ''}, got "
                f"{len(found)}: explain its parts one by one, or its beginning alone with "
                "truncate=True (--truncate)"
            )
        shorter = _called(tokenizer, sentences, truncation=True, max_length=limit)
        note = f"only {limit} of {len(found)} tokens were read: the text was truncated"
        found = replace(shorter, note=note)
    if not found.own:
        raise ValueError(f"{name}: expected a text with at least one token, got {sentences[0]!r}")
    return found


def _called(tokenizer: Tokenizer, sentences: Sentences, **settings: Any) -> Encoded:
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        settings |= {
            "padding": False,
            "return_offsets_mapping": bool(getattr(tokenizer, "is_fast", False)),
            "return_special_tokens_mask": True,
            "verbose": False,
        }
    try:
        found = tokenizer(*sentences, **settings)
    except Exception as error:
        raise ValueError(f"tokenizer: it failed on {sentences} ({first_line(error)})") from error
    return Encoded.of(sentences, found, tokenizer)
