"""What `explain` and `compare` are asked for where they are of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from moreaugrad.runs.plans.arrays import ArrayPlan
from moreaugrad.runs.plans.common import ModelPlan
from moreaugrad.runs.plans.option import Plan, option

TOKENS, WORDS = "tokens", "words"
VALUES = ("auto", "product", "sum", "norm")


@dataclass(frozen=True, kw_only=True)
class ReaderPlan(ModelPlan):
    """Which network, which may be a language model, or one of series or volumes.

    array: how arrays become its inputs; None of images and texts.
    """

    tokenizer: str | None = option(
        None, "Tokenizer of a language model: a folder or name of transformers, or "
        "module:function, from a text to its token ids.", shown="that of the model's folder",
    )  # fmt: skip
    array: ArrayPlan | None = None

    def arguments(self) -> dict[str, Any]:
        array = None if self.array is None else self.array.given()
        return {**super().arguments(), "tokenizer": self.tokenizer, "array": array}


@dataclass(frozen=True, kw_only=True)
class TextPlan(Plan):
    """Texts instead of images, and how they are explained; see `text.explain`.

    texts: given as such; others are in files that end as `TEXT_SUFFIXES`.
    """

    GROUP: ClassVar[str] = "Text"

    texts: tuple[str, ...] = option(
        (), "A text to explain, instead of images or files of texts (.txt: a text in each line; "
        ".csv and .tsv).", "--text", repeated=True, metavar="TEXT",
        read=lambda _, texts: tuple(texts),
    )  # fmt: skip
    column: str | None = option(
        None, "Column of the texts in .csv and .tsv files.", shown="the only one", metavar="NAME"
    )
    units: str = option(
        TOKENS, "What group-sparse methods keep or drop as a whole, and what is drawn as one: "
        "tokens or words.",
        choices=(TOKENS, WORDS),
    )  # fmt: skip
    values: str = option(
        "auto", "How a token's vector in the map becomes one value: product with the embedding, "
        "sum or norm.", choices=VALUES,
        shown="sum for methods with the input as a factor, else product",
    )  # fmt: skip
    special: bool = option(
        False, "Explain the tokens that the tokenizer adds, such as [CLS], too.", "--special"
    )
    truncate: bool = option(
        False, "Explain only the beginning of texts that are too long for the model; otherwise "
        "such texts are left out.", "--truncate",
    )  # fmt: skip
