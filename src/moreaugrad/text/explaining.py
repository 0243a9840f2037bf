"""`explain`: texts in, a value for each token and word out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from moreaugrad.explainers.calling import Progress, reporting
from moreaugrad.registry import choose
from moreaugrad.settings import expect
from moreaugrad.text.batches import Batches, explainer_of
from moreaugrad.text.encoding import Sentences
from moreaugrad.text.explanation import (
    AUTO,
    GROUPS,
    TOKENS,
    VALUES,
    WORDS,
    TextExplanation,
    TextExplanations,
    value_of,
)
from moreaugrad.text.model import TextModel
from moreaugrad.text.targets import TextTarget, one_each

Texts = str | Iterable[str | tuple[str, str]]
"""A text, or several; a pair of sentences is a tuple among several."""


def explain(
    model: Any,
    tokenizer: Any,
    texts: Texts | None = None,
    method: str = "group-sparse-moreaugrad",
    *,
    target: TextTarget | Sequence[TextTarget] | Tensor = None,
    groups: str = TOKENS,
    values: str = AUTO,
    special: bool = False,
    layer: str | nn.Module | None = None,
    labels: Sequence[str] | None = None,
    truncate: bool = False,
    ids: Sequence[int] | None = None,
    progress: Progress | bool | None = None,
    **settings: Any,
) -> TextExplanations:
    """A value for each token and word of texts, by a method's map at the model's embedding.

    >>> language = torch.nn.Sequential(torch.nn.Embedding(256, 4), torch.nn.Flatten(),
    ...                                torch.nn.Linear(16, 2)).eval()
    >>> found = mg.text.explain(language, lambda text: [*text.encode()], ["film", "book"])

    model: of transformers, for sequence classification (pairs of sentences too), token
    classification or causal language modelling; any module that takes token ids `[B, L]` first; or
    a pipeline, `explain(pipeline, texts)`.
    tokenizer: the model's; or a function from a text (or two) to its ids, or to a mapping with the
    names of transformers: "input_ids", and where they are known "attention_mask" (0 at padding),
    "special_tokens_mask", "offset_mapping" (characters) and "tokens".
    texts: a text, or a list; a pair of sentences is a tuple in the list.
    target: one for all texts, or a list. A class or its label; None is the prediction. Of a token
    classifier (class, token), the token a number or a word that occurs once. Of a causal model the
    phrase that follows, with the space that it begins with: the score is then its probability given
    the text; None is the most probable token.
    groups: "tokens" or "words", the groups of group-sparse methods, and what is drawn.
    values: how a token's value is made of its vector in the map A at the embedding x: "product"
    (sum of A x, signed), "sum" (of A) or "norm" (of A, unsigned); "auto" is "sum" for methods that
    have the input as a factor, such as integrated gradients, and "product" for the others.
    special: False holds the tokens that the tokenizer adds, as [CLS], constant: they have no noise
    and no displacement, are 0 in the map and do not count in its sparsity.
    layer: the module whose output `[B, L, D]` is explained; None is the table of token vectors.
    labels: of the classes, if the model does not know them. truncate: read the beginning of texts
    that are too long, which the result notes; False refuses them. ids: as in `Explainer.explain`.
    settings: of the method, such as sparsity=0.5; `score` is "log-probability" for causal models.

    Texts of the same length are explained together. None is padded, so that a text has the same map
    whatever other texts are explained with it.
    Errors: TypeError or ValueError for bad input: texts that are empty or too long, a tokenizer
    with more tokens than the model. Warns of a tokenizer with far fewer.
    """
    if texts is None:
        model, tokenizer, texts = _of_pipeline(model, tokenizer)
    choose("groups", groups, GROUPS)
    choose("values", values, (AUTO, *VALUES))
    reader = TextModel.of(model, tokenizer, layer)
    listed = _sentences(texts)
    targets = one_each(target, len(listed))
    classes = reader.classes(reader.encoded(listed[0], "texts[0]", truncate=truncate), labels)
    read = [
        classes.read(
            reader.encoded(
                sentences, f"texts[{number}]", truncate=truncate, room=classes.room(wanted)
            )
        )
        for number, (sentences, wanted) in enumerate(zip(listed, targets, strict=True))
    ]
    if groups == WORDS and not all(encoded.words for encoded in read):
        raise ValueError(
            "groups: expected 'tokens', because this tokenizer does not say which characters its "
            "tokens are (offset_mapping; tokenizers of transformers do if is_fast)"
        )
    explainer = explainer_of(method, reader.language, classes.task, settings)
    batches = Batches(
        language=reader.language, task=classes.task, explainer=explainer, words=groups == WORDS,
        special=special,
    )  # fmt: skip
    aims = [classes.aim(wanted, encoded) for wanted, encoded in zip(targets, read, strict=True)]
    with reporting(progress, method) as report:
        found = batches.explained(read, aims, ids, report)
    return TextExplanations(
        tuple(
            TextExplanation.of(
                encoded, explanation, value_of(values, explainer), groups, classes, aim
            )
            for encoded, aim, explanation in zip(read, aims, found, strict=True)
        )
    )


def _of_pipeline(pipeline: Any, texts: Any) -> tuple[Any, Any, Any]:
    """Model, tokenizer and texts. Errors: TypeError for anything but a pipeline."""
    parts = getattr(pipeline, "model", None), getattr(pipeline, "tokenizer", None)
    if None in parts:
        raise TypeError(
            "expected explain(model, tokenizer, texts), or explain(pipeline, texts) with a "
            f"pipeline that has a model and a tokenizer; got {type(pipeline).__name__} and no texts"
        )
    return *parts, texts


def _sentences(texts: object) -> list[Sentences]:
    """The sentences of each text. Errors: TypeError, ValueError."""
    keys = isinstance(texts, Mapping) or hasattr(texts, "columns")  # a frame gives its columns'
    if keys or isinstance(texts, (tuple, bytes)) or not isinstance(texts, Iterable):
        raise TypeError(
            "texts: expected a text or a list of texts (of a frame a column, frame['review']), a "
            f"pair of sentences as a tuple in the list, got {type(texts).__name__}"
        )
    listed = [texts] if isinstance(texts, str) else list(texts)
    expect(len(listed) > 0, "texts", "at least one text", texts)
    found = [each if isinstance(each, tuple) else (each,) for each in listed]
    for number, each in enumerate(found):
        if len(each) not in (1, 2) or not all(isinstance(part, str) for part in each):
            raise TypeError(
                f"texts: expected texts, or pairs of them, got {listed[number]!r} as text {number}"
            )
    return found
