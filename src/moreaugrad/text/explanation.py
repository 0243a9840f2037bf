"""The explanation of a text: a value for each token and each word, drawn as highlighted text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from moreaugrad.explainers import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.extras import required
from moreaugrad.files.units import Record
from moreaugrad.registry import choose
from moreaugrad.settings import Documented
from moreaugrad.text import drawing
from moreaugrad.text.drawing import Drawn, Segment
from moreaugrad.text.encoding import Encoded, Span, Word
from moreaugrad.text.targets import Classes, ParsedTarget

if TYPE_CHECKING:
    import pandas

TOKENS, WORDS = "tokens", "words"
GROUPS = (TOKENS, WORDS)
AUTO, PRODUCT, SUM, NORM = "auto", "product", "sum", "norm"
VALUES = {
    PRODUCT: "sum over the embedding of map times embedding",
    SUM: "sum over the embedding of the map",
    NORM: "Euclidean norm of the map over the embedding",
}
"""How a token's value is made of its vector in the map."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TextExplanation(metaclass=Documented, heading="Attributes"):
    """Signed values of the tokens and words of one text.

    >>> language = torch.nn.Sequential(torch.nn.Embedding(256, 4), torch.nn.Flatten(),
    ...                                torch.nn.Linear(16, 2)).eval()
    >>> (found,) = mg.text.explain(language, lambda text: [*text.encode()], "film")
    >>> values, page = found.values, found.to_terminal()

    A notebook shows the text, highlighted: orange where it raises the score, blue and underlined
    where it lowers it, in proportion to the largest value of the text.
    """

    sentences: tuple[str, ...]
    """The text, or the two sentences of a pair."""
    tokens: tuple[str, ...]
    """The tokenizer's tokens, special ones included."""
    spans: tuple[Span | None, ...]
    """First character of each token in its sentence and the one after its last; None for special
    tokens, and where the tokenizer does not say."""
    sentence: tuple[int, ...]
    """The sentence of each token, 0 or 1."""
    special: tuple[bool, ...]
    """Which tokens the tokenizer added, as [CLS]."""
    words: tuple[Word, ...]
    """Words and punctuation marks; none where the tokenizer does not say where its tokens are."""
    values: Tensor
    """A value for each token, `[L]`; see `value`."""
    value: str
    """How values are made of the map: "product", "sum" or "norm"."""
    groups: str
    """What is drawn: "tokens" or "words"."""
    explanation: Explanation
    """The map at the embedding `[1, L, D]`, with status, error, settings and cost."""
    target: str
    """The label of the explained class, or the phrase."""
    prediction: str | None
    """The label of the predicted class; None for a phrase."""
    place: int | None
    """The token whose class is explained, of a model that classifies tokens; else None."""
    notes: tuple[str, ...]
    """What the reader must know: that the text was truncated."""

    @classmethod
    def of(
        cls, encoded: Encoded, explanation: Explanation, value: str, groups: str, classes: Classes,
        aim: ParsedTarget,
    ) -> TextExplanation:  # fmt: skip
        """From the map of one text, whose first positions are those of `encoded`."""
        places = [at for at, real in enumerate(encoded.real) if real]
        shown = encoded.kept(places)
        values = token_values(explanation, value)[0, : len(encoded)][places]
        return cls(
            sentences=shown.sentences,
            tokens=tuple(shown.tokens),
            spans=tuple(shown.spans),
            sentence=tuple(shown.sentence),
            special=tuple(shown.special),
            words=shown.words,
            values=values,
            value=value,
            groups=groups,
            explanation=explanation,
            target=aim.text or classes.name(int(explanation.target)),
            prediction=None if aim.phrase else classes.name(int(explanation.prediction)),
            place=aim.place,
            notes=tuple(filter(None, [encoded.note])),
        )

    @property
    def word_values(self) -> Tensor:
        """A value for each word, `[W]`: the sum over its tokens, of norms the norm."""
        parts = [self.combined(word.tokens) for word in self.words]
        return torch.tensor(parts, dtype=self.values.dtype)

    def combined(self, tokens: Sequence[int]) -> float:
        """The value of several tokens together."""
        own = self.values[list(tokens)]
        return float(own.norm() if self.value == NORM else own.sum())

    @property
    def score(self) -> float:
        """The explained number for this text."""
        return float(self.explanation.score)

    @property
    def status(self) -> str:
        """How the computation of the map ended."""
        return str(self.explanation.status[0].value)

    @property
    def meaning(self) -> str:
        """What a value is, in words."""
        return VALUES[self.value]

    @property
    def held(self) -> bool:
        """Whether special tokens were held constant, so that they have no value."""
        mask = self.explanation.mask
        return any(self.special) and isinstance(mask, Tensor) and not bool(mask.all())

    def rows(self) -> list[dict[str, Any]]:
        """One for each token: its value, and its word with the word's value."""
        word_of = {at: number for number, word in enumerate(self.words) for at in word.tokens}
        whole = self.word_values.tolist()
        return [
            {
                "token": token,
                "value": value,
                "word": self.words[word_of[at]].text if at in word_of else None,
                "word_value": whole[word_of[at]] if at in word_of else None,
                "sentence": self.sentence[at],
                "start": None if span is None else span[0],
                "end": None if span is None else span[1],
                "special": self.special[at],
            }
            for at, (token, value, span) in enumerate(
                zip(self.tokens, self.values.tolist(), self.spans, strict=True)
            )
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """`rows` as a data frame. Errors: ImportError without pandas."""
        pandas = required("pandas", "pandas", "to_pandas()")

        return pandas.DataFrame(self.rows()).astype({"start": "Int64", "end": "Int64"})

    def record(self) -> Record:
        """What is drawn, as plain values; `drawn` reads it."""
        lines = [[_plain(piece) for piece in line] for line in self._pieces()]
        return {"value": self.value, "held": self.held, "lines": lines}

    def to_terminal(self) -> str:
        """The highlighted text with ANSI colours, for `print`."""
        return drawing.terminal(self._drawn)

    def to_latex(self) -> str:
        r"""The highlighted text as LaTeX; needs `\usepackage{xcolor}`."""
        return drawing.latex(self._drawn)

    def _repr_html_(self) -> str:
        return drawing.html([self._drawn])

    def __repr__(self) -> str:
        found = [f"{one.text.strip()!r} {one.value:+.3g}" for one in self._drawn.strongest[:3]]
        text = " | ".join(self.sentences)
        shown = text if len(text) <= 40 else f"{text[:39]}…"
        return (
            f"TextExplanation({shown!r}, target={self.target!r}, status={self.status!r}: "
            f"{', '.join(found) or 'all zero'})"
        )

    @cached_property
    def _drawn(self) -> Drawn:
        facts = [f"target: {self.target}"]
        if self.place is not None:
            facts.append(f"token {self.place}: {self.tokens[self.place]}")
        if self.prediction not in (None, self.target):
            facts.append(f"prediction: {self.prediction}")
        kind = self.explanation.settings.get("score", "score")
        facts += [f"{kind}: {self.score:.4g}", self.explanation.method, self.status, *self.notes]
        return Drawn(self._pieces(), facts, legend(self.value, held=self.held))

    def _pieces(self) -> list[list[Segment]]:
        """The pieces of each sentence. Tokens of the same characters, as those of an emoji, are one
        piece; so are a word's tokens if words are drawn."""
        words = self.words if self.groups == WORDS else ()
        word_of = {at: word for word in words for at in word.tokens}
        found: list[list[Segment]] = [[] for _ in self.sentences]
        read = [0] * len(found)
        last: list[int] = []  # the tokens of the last piece
        for at, (span, number) in enumerate(zip(self.spans, self.sentence, strict=True)):
            line, text = found[number], self.sentences[number]
            if span is None:
                piece = Segment(self.tokens[at], self.combined([at]), special=self.special[at])
                line += [piece] if self.special[at] else [piece, Segment(" ")]
                continue
            word = word_of.get(at)
            start, end = span if word is None else (word.start, max(word.end, span[1]))
            if start < read[number]:
                last.append(at)
                more = text[read[number] : end]
                line[-1] = Segment(line[-1].text + more, self.combined(last))
            else:
                last = [at]
                line += drawing.between(text[read[number] : start])
                line.append(Segment(text[start:end] or "␣", self.combined(last)))
            read[number] = max(read[number], end)
        if any(span is not None for span in self.spans):
            for line, text, end in zip(found, self.sentences, read, strict=True):
                line += drawing.between(text[end:])
        return found


def _plain(piece: Segment) -> list[Any]:
    """A value that is not finite is null, which JSON can say."""
    known = piece.value is not None and math.isfinite(piece.value)
    return [piece.text, piece.value if known else None, piece.special, piece.unread]


def drawn(record: Mapping[str, Any], facts: Sequence[str] = ()) -> Drawn:
    """The highlighted text of a `TextExplanation.record`. facts: what is written above it."""
    lines = [[Segment(*piece) for piece in line] for line in record["lines"]]
    return Drawn(lines, facts, legend(record["value"], held=record["held"]))


def legend(value: str, *, held: bool) -> str:
    """What colours mean. value: see `VALUES`. held: special tokens have none."""
    signs = "orange: raises the score; blue, underlined: lowers it"
    if value == NORM:
        signs = "orange: strong"
    kept = "; special tokens were held constant" if held else ""
    return f"{signs} ({VALUES[value]}){kept}"


def value_of(values: str, explainer: Explainer) -> str:
    """How values are made of a method's maps, where that is "auto"."""
    if values != AUTO:
        return choose("values", values, VALUES)
    return SUM if explainer.multiplies_by_inputs else PRODUCT


@dataclass(frozen=True, eq=False, repr=False)
class TextExplanations(Sequence[TextExplanation]):
    """The explanations of several texts, in their order: a sequence that a notebook shows.

    >>> language = torch.nn.Sequential(torch.nn.Embedding(256, 4), torch.nn.Flatten(),
    ...                                torch.nn.Linear(16, 2)).eval()
    >>> both = mg.text.explain(language, lambda text: [*text.encode()], ["film", "book"], target=1)
    >>> table, first = both.to_pandas(), both[0]
    """

    each: tuple[TextExplanation, ...]
    """One for each text."""

    @overload
    def __getitem__(self, index: int) -> TextExplanation: ...
    @overload
    def __getitem__(self, index: slice) -> TextExplanations: ...
    def __getitem__(self, index: int | slice) -> TextExplanation | TextExplanations:
        if isinstance(index, slice):
            return TextExplanations(self.each[index])
        return self.each[index]

    def __len__(self) -> int:
        return len(self.each)

    def __iter__(self) -> Iterator[TextExplanation]:
        return iter(self.each)

    @property
    def ok(self) -> bool:
        """Whether every map has the accuracy that its method promises."""
        return all(one.explanation.ok for one in self.each)

    def problems(self) -> list[str]:
        """One line for each text whose map has not."""
        lines = [(number, one.explanation.problems()) for number, one in enumerate(self.each)]
        return [f"text {number}: {own[0].partition(': ')[2]}" for number, own in lines if own]

    def to_pandas(self) -> pandas.DataFrame:
        """The rows of all texts, with the text's number. Errors: ImportError without pandas."""
        pandas = required("pandas", "pandas", "to_pandas()")

        tables = [one.to_pandas() for one in self.each]
        return pandas.concat(tables, keys=range(len(tables)), names=["text", "token_number"])

    def to_terminal(self) -> str:
        """The highlighted texts with ANSI colours, a paragraph each."""
        return "\n\n".join(one.to_terminal() for one in self.each)

    def to_latex(self) -> str:
        r"""The highlighted texts as LaTeX, a paragraph each; needs `\usepackage{xcolor}`."""
        return "\n\n".join(one.to_latex() for one in self.each)

    def _repr_html_(self) -> str:
        return drawing.html([one._drawn for one in self.each])

    def __repr__(self) -> str:
        inside = "".join(f"\n  {one!r}," for one in self.each)
        return f"TextExplanations({inside}\n)"


def token_values(explanation: Explanation, value: str) -> Tensor:
    """The values `[B, L]` of positions, of maps `[B, L, D]`; on the CPU."""
    (maps,), inputs = explanation.parts, explanation.inputs
    assert isinstance(inputs, Tensor)
    maps, inputs = (part.detach().cpu() for part in (maps, inputs))
    if maps.dtype is not torch.float64:
        maps, inputs = maps.float(), inputs.float()
    choose("values", value, VALUES)
    factor = 1 if value == SUM else inputs
    found: Tensor = maps.norm(dim=2) if value == NORM else (maps * factor).sum(2)
    return found
