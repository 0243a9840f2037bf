"""Maps of texts against gradients taken by hand, and against the explainers they are made of."""

import importlib
import sys

import pytest
import torch

import moreaugrad as mg
from text_models import SENTENCES, Bytes, as_bytes

CLASSIFIERS = ("Bert", "DistilBert", "Roberta", "GPT2")
SPARSE = {"sigma": 0, "rho": 0.05, "sparsity": 0.5}
"""Of a map that is solved to a residual in a few steps."""


def gradients(model, encoded, read):
    """(gradient, embedding), `[L, D]` each, of read(logits), by the model's own `inputs_embeds`."""
    further = {name: torch.tensor([column]) for name, column in encoded.items()}
    ids = further.pop("input_ids")
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, **further).logits
    (found,) = torch.autograd.grad(read(logits), embedded)
    return found[0], embedded[0].detach()


class Logits(torch.nn.Module):
    """A classifier of transformers as a function of ids and their mask."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, ids, mask=None):
        return self.inner(ids, attention_mask=mask).logits


def close(found, expected):
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_values_are_gradient_times_embedding(kind, load):
    model, tokenizer = load(f"{kind}ForSequenceClassification")
    for one, text in zip(
        mg.text.explain(model, tokenizer, SENTENCES, "simple-gradient", target="so-so"),
        SENTENCES, strict=True,
    ):  # fmt: skip
        grad, embedded = gradients(model, tokenizer(text), lambda logits: logits[0, 2])
        expected = (grad * embedded).sum(1)
        expected[torch.tensor(one.special)] = 0
        close(one.values, expected)
        assert one.target == "so-so"
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0].detach()
        assert one.prediction == model.config.id2label[int(logits.argmax())]
        assert one.score == pytest.approx(float(logits[2]), abs=1e-5)
        assert list(one.tokens) == tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


@pytest.mark.parametrize(
    ("values", "of"),
    [
        ("sum", lambda grad, embedded: grad.sum(1)),
        ("norm", lambda grad, embedded: grad.norm(dim=1)),
        ("product", lambda grad, embedded: (grad * embedded).sum(1)),
    ],
)
def test_how_values_are_made(values, of, load):
    model, tokenizer = load("BertForSequenceClassification")
    (found,) = mg.text.explain(
        model, tokenizer, SENTENCES[0], "simple-gradient", target=1, values=values, special=True
    )
    close(found.values, of(*gradients(model, tokenizer(SENTENCES[0]), lambda out: out[0, 1])))
    for word, own in zip(found.words, found.word_values, strict=True):
        tokens = found.values[list(word.tokens)]
        assert float(own) == pytest.approx(float(tokens.norm() if values == "norm" else
                                                 tokens.sum()))  # fmt: skip


def test_methods_with_the_input_as_a_factor_are_summed(load):
    model, tokenizer = load("BertForSequenceClassification")
    kinds = {
        method: mg.text.explain(model, tokenizer, "film", method)[0].value
        for method in ("simple-gradient", "gradient-x-input", "integrated-gradients")
    }
    assert kinds == {
        "simple-gradient": "product", "gradient-x-input": "sum", "integrated-gradients": "sum",
    }  # fmt: skip
    (path,) = mg.text.explain(model, tokenizer, SENTENCES[0], "integrated-gradients")
    ids = torch.tensor([tokenizer(SENTENCES[0])["input_ids"]])
    embedded = model.get_input_embeddings()(ids)
    empty = torch.where(torch.tensor(path.special)[None, :, None], embedded, 0.0)
    target = int(path.explanation.target)
    with torch.no_grad():
        change = model(ids).logits[0, target] - model(inputs_embeds=empty).logits[0, target]
    assert float(path.values.sum()) == pytest.approx(float(change), rel=0.05)


@pytest.mark.parametrize("method", ["simple-gradient", "gradient-x-input"])
def test_a_balanced_backward_pass_is_complete(method, load):
    model, tokenizer = load("DistilBertForSequenceClassification")
    given = {"target": 2, "backward": "balanced"}
    table = model.get_input_embeddings()
    explainer = mg.SimpleGradient(Logits(model), layer=table, backward="balanced")
    for text, one in zip(
        SENTENCES[:2], mg.text.explain(model, tokenizer, SENTENCES[:2], method, **given),
        strict=True,
    ):  # fmt: skip
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        expected = (explainer.attribute(ids, 2) * table(ids)).sum(2)[0].detach()
        expected[torch.tensor(one.special)] = 0
        close(one.values, expected)
        assert float(one.explanation.details["completeness_error"]) < 1e-4


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_text_has_the_same_map_alone_and_among_others(kind, load):
    model, tokenizer = load(f"{kind}ForSequenceClassification")
    settings = {"max_evaluations": 64, "ids": range(len(SENTENCES))}
    together = mg.text.explain(model, tokenizer, SENTENCES, **settings)
    assert len({len(one.tokens) for one in together}) > 2
    for number, one in enumerate(together):
        (alone,) = mg.text.explain(
            model, tokenizer, [SENTENCES[number]], **settings | {"ids": [number]}
        )
        close(one.explanation.maps, alone.explanation.maps)
        assert one.status == alone.status


def test_ids_key_the_noise_of_each_text():
    model, text = Bytes().eval(), SENTENCES[2]
    first, second = mg.text.explain(model, as_bytes, [text] * 2, "smoothgrad", ids=[0, 7])
    (alone,) = mg.text.explain(model, as_bytes, text, "smoothgrad", ids=[7])
    (default,) = mg.text.explain(model, as_bytes, text, "smoothgrad")
    close(second.values, alone.values)
    close(first.values, default.values)
    assert not torch.allclose(first.values, second.values, rtol=1e-3)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "GPT2"])
def test_maps_are_those_of_a_padded_batch_with_its_mask(kind, load):
    model, tokenizer = load(f"{kind}ForSequenceClassification")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt", return_special_tokens_mask=True)
    real = batch["attention_mask"].bool()
    assert not real.all()

    explainer = mg.GroupSparseMoreauGrad(
        Logits(model), layer=model.get_input_embeddings(), group="tokens", **SPARSE
    )
    mask = real & ~batch["special_tokens_mask"].bool()
    padded = explainer.explain(batch["input_ids"], 1, batch["attention_mask"], mask=mask)
    found = mg.text.explain(model, tokenizer, SENTENCES, target=1, **SPARSE)
    for row, one in enumerate(found):
        assert torch.equal(one.values == 0, padded.maps[row, real[row]].norm(dim=1) == 0)
        torch.testing.assert_close(
            one.explanation.maps[0], padded.maps[row, real[row]], rtol=0,
            atol=2e-3 * float(padded.maps[row].abs().max()),
        )  # fmt: skip


@pytest.mark.parametrize("settings", [SPARSE, {"max_evaluations": 256}], ids=["exact", "noise"])
def test_padding_of_a_users_own_tokenizer_takes_no_part(settings):
    model = Bytes().eval()
    short = mg.text.explain(model, as_bytes, SENTENCES[2], **settings)
    long = mg.text.explain(model, lambda text: as_bytes(text, 40), SENTENCES[2], **settings)
    assert long[0].explanation.maps.shape[1] == 40
    assert long[0].tokens == short[0].tokens == tuple(SENTENCES[2])
    close(long[0].values, short[0].values)


def test_words_are_groups(load):
    model, tokenizer = load("BertForSequenceClassification")
    text, half = "wonderful actors, good film", SPARSE | {"sparsity": 0.6}
    (found,) = mg.text.explain(model, tokenizer, text, target=0, groups="words", **half)
    assert [word.text for word in found.words] == ["wonderful", "actors", ",", "good", "film"]
    sizes = found.explanation.maps[0].norm(dim=1)
    whole = [{bool(sizes[at] > 0) for at in word.tokens} for word in found.words]
    assert {True} in whole
    assert {False} in whole
    assert {True, False} not in whole
    assert sum(own == {True} for own in whole) == 2
    assert max(len(word.tokens) for word in found.words) > 1
    (single,) = mg.text.explain(model, tokenizer, text, target=0, **half)
    apart = [{bool(single.values[at] != 0) for at in word.tokens} for word in single.words]
    assert {True, False} in apart


@pytest.mark.parametrize(
    "words",
    [
        ["हिन्दी", "में", "फ़िल्म", "!"],
        ["le", "cafe\u0301s", "l\u2019e\u0301tat-major"],
        ["สวัสดี", "❤\ufe0f", "film"],
        ["می\u200cخواهم", "مُحَمَّد"],
    ],
)
def test_letters_with_marks_are_in_words(words):
    """Vowel signs and accents are characters of their own, which belong to the letter before."""
    (found,) = mg.text.explain(Bytes().eval(), as_bytes, " ".join(words), "simple-gradient")
    joined = "".join(word.text for word in found.words).split()
    assert joined == words
    assert [word.text for word in found.words if word.text.strip()] == [
        part for word in words for part in (word if word[0] == "❤" else [word])
    ]


def test_texts_with_other_words_of_the_same_length_keep_their_groups(load):
    model, tokenizer = load("BertForSequenceClassification")
    texts = ["wonderful film is", "film wonderful is"]
    assert len({len(tokenizer(text)["input_ids"]) for text in texts}) == 1
    both = mg.text.explain(model, tokenizer, texts, target=0, groups="words", **SPARSE)
    for text, one in zip(texts, both, strict=True):
        (alone,) = mg.text.explain(model, tokenizer, text, target=0, groups="words", **SPARSE)
        close(one.values, alone.values)


def test_special_tokens_are_held_constant(load):
    model, tokenizer = load("BertForSequenceClassification")
    (held,) = mg.text.explain(model, tokenizer, "good film", "simple-gradient")
    (free,) = mg.text.explain(model, tokenizer, "good film", "simple-gradient", special=True)
    assert held.special == free.special == (True, False, False, True)
    assert held.values[[0, 3]].tolist() == [0, 0]
    assert bool((free.values[[0, 3]] != 0).all())
    close(held.values[1:3], free.values[1:3])
    assert held.held
    assert not free.held


def test_pairs_of_sentences(load):
    model, tokenizer = load("BertForSequenceClassification")
    pair = ("the film is good", "a good film?")
    (found,) = mg.text.explain(model, tokenizer, [pair], "simple-gradient", target=0)
    grad, embedded = gradients(model, tokenizer(*pair), lambda logits: logits[0, 0])
    expected = (grad * embedded).sum(1)
    expected[torch.tensor(found.special)] = 0
    close(found.values, expected)
    assert found.sentences == pair
    assert [(word.sentence, word.text) for word in found.words] == [
        *((0, word) for word in pair[0].split()), (1, "a"), (1, "good"), (1, "film"), (1, "?"),
    ]  # fmt: skip
    first, second = (line[-1].text for line in found._pieces())
    assert first == second == "[SEP]"


def test_a_wrapper_is_given_what_the_model_inside_takes(load):
    """As torch.compile and torch.nn.DataParallel pass on any argument."""
    model, tokenizer = load("BertForSequenceClassification")

    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, *given, **named):
            return self.inner(*given, **named)

    pair, how = [("wonderful film", "boring actors")], {"method": "simple-gradient", "target": 1}
    (expected,) = mg.text.explain(model, tokenizer, pair, **how)
    layer = "inner.bert.embeddings.word_embeddings"
    (one,) = mg.text.explain(Wrapper().eval(), tokenizer, pair, layer=layer, **how)
    assert one.score == expected.score
    close(one.values, expected.values)


def test_a_class_at_a_token(load):
    model, tokenizer = load("BertForTokenClassification")
    text = "paris is good"
    found = mg.text.explain(
        model, tokenizer, [text] * 3, "simple-gradient",
        target=[("good", "is"), (1, 2), (None, "is")],
    )  # fmt: skip
    grad, embedded = gradients(model, tokenizer(text), lambda logits: logits[0, 2, 1])
    expected = (grad * embedded).sum(1)
    expected[[0, -1]] = 0
    close(found[0].values, expected)
    close(found[1].values, expected)
    assert found[0].place == found[1].place == found[2].place == 2
    logits = model(**tokenizer(text, return_tensors="pt")).logits
    assert found[2].target == model.config.id2label[int(logits[0, 2].argmax())]


def test_a_token_behind_a_mask(load):
    model, tokenizer = load("BertForMaskedLM")
    text = "paris is [MASK]"
    (found,) = mg.text.explain(model, tokenizer, text, "simple-gradient", target=("good", "[MASK]"))
    index = tokenizer.convert_tokens_to_ids("good")
    grad, embedded = gradients(model, tokenizer(text), lambda logits: logits[0, 3, index])
    close(found.values[1:4], (grad * embedded).sum(1)[1:4])
    assert found.target == "good"


@pytest.mark.parametrize("score", ["log-probability", "probability", "logit"])
@pytest.mark.parametrize("phrase", [" France", " actors", "film"])
def test_a_phrase_that_follows(score, phrase, load):
    model, tokenizer = load("GPT2LMHeadModel")
    text = SENTENCES[-1].removesuffix(" France")
    ids, more = (tokenizer(part)["input_ids"] for part in (text, phrase))

    def read(logits):
        table = logits[0, len(ids) - 1 :]
        table = table if score == "logit" else table.log_softmax(1)
        total = table[range(len(more)), more].sum()
        return total.exp() if score == "probability" else total

    (found,) = mg.text.explain(
        model, tokenizer, text, "simple-gradient", target=phrase, score=score
    )
    grad, embedded = gradients(model, {"input_ids": ids + more[:-1]}, read)
    close(found.values, (grad * embedded).sum(1)[: len(ids)])
    assert len(found.tokens) == len(ids)
    assert found.target == phrase
    assert found.explanation.settings["score"] == score
    with torch.no_grad():
        expected = float(read(model(torch.tensor([ids + more[:-1]])).logits))
    assert found.score == pytest.approx(expected)


def test_a_causal_model_of_ones_own():
    """With a table of positions beside that of the tokens, which the outputs use too."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.place = torch.nn.Embedding(256, 6), torch.nn.Embedding(20, 6)

        def forward(self, ids):
            z = self.token(ids) + self.place(torch.arange(ids.shape[1]))
            return torch.tanh(z).cumsum(1) @ self.token.weight.T

    torch.manual_seed(0)
    network = Network().eval()
    how = {"method": "simple-gradient", "layer": "token"}
    chosen, phrase = mg.text.explain(network, as_bytes, ["film"] * 2, target=[None, "ed"], **how)
    with torch.no_grad():
        table = network(torch.tensor([[*b"filme"]]))[0].log_softmax(1)
    assert chosen.score == pytest.approx(float(table[3].max()), abs=1e-5)
    assert phrase.score == pytest.approx(float(table[3, ord("e")] + table[4, ord("d")]), abs=1e-5)
    with pytest.raises(ValueError, match="from 0 to 255"):
        mg.text.explain(network, lambda text: [256], "film", **how)


def test_some_phrases_have_several_tokens(load):
    _, tokenizer = load("GPT2LMHeadModel")
    sizes = {len(tokenizer(phrase)["input_ids"]) for phrase in (" France", " actors", "film")}
    assert 1 in sizes
    assert max(sizes) > 1


def test_the_most_probable_next_token(load):
    model, tokenizer = load("GPT2LMHeadModel")
    found = mg.text.explain(model, tokenizer, SENTENCES, "simple-gradient")
    for one, text in zip(found, SENTENCES, strict=True):
        top = model(**tokenizer(text, return_tensors="pt")).logits[0, -1].log_softmax(0).detach()
        assert one.target == one.prediction == tokenizer.decode([int(top.argmax())])
        assert one.score == pytest.approx(float(top.max()), rel=1e-4)


def test_phrases_are_not_part_of_the_sparse_map(load):
    model, tokenizer = load("GPT2LMHeadModel")
    (found,) = mg.text.explain(
        model, tokenizer, "the actors are", target=" wonderful, good", groups="words", **SPARSE
    )
    assert found.explanation.maps.shape[1] > len(found.tokens)
    assert bool((found.explanation.maps[0, len(found.tokens) :] == 0).all())
    assert bool((found.values != 0).any())


def test_a_pipeline(load, transformers):
    model, tokenizer = load("RobertaForSequenceClassification")
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    (found,) = mg.text.explain(pipeline, SENTENCES[0], method="simple-gradient")
    (direct,) = mg.text.explain(model, tokenizer, SENTENCES[0], "simple-gradient")
    assert torch.equal(found.values, direct.values)
    assert found.prediction == pipeline(SENTENCES[0])[0]["label"]


@pytest.mark.parametrize(
    ("problem", "task"),
    [("multi_label_classification", "multilabel"), ("regression", "regression")],
)
def test_the_kind_of_task_is_the_models(problem, task, load, monkeypatch):
    model, tokenizer = load("BertForSequenceClassification")
    monkeypatch.setattr(model.config, "problem_type", problem)
    (found,) = mg.text.explain(model, tokenizer, "film", "simple-gradient", target=1)
    assert found.explanation.settings["task"] == task


def test_truncation_is_noted(load):
    model, tokenizer = load("RobertaForSequenceClassification")
    text = "wonderful film " * 30
    (found,) = mg.text.explain(model, tokenizer, text, "simple-gradient", truncate=True)
    assert len(found.tokens) == 40
    assert "truncated" in found.notes[0]
    assert "truncated" in found._repr_html_()
    last = found._pieces()[0][-1]
    assert last.unread
    assert text.endswith(last.text)


def test_a_phrase_has_room_after_a_text_that_fills_the_model(load):
    model, tokenizer = load("GPT2LMHeadModel")
    text, phrase = "x" * 40, " very, very good"
    assert len(tokenizer(text)["input_ids"]) == 40
    how = {"method": "simple-gradient", "target": phrase}
    most = 41 - len(tokenizer(phrase)["input_ids"])
    with pytest.raises(ValueError, match=rf"texts\[0\].*at most {most} tokens.*phrase.*truncate"):
        mg.text.explain(model, tokenizer, text, **how)
    (cut,) = mg.text.explain(model, tokenizer, text, truncate=True, **how)
    (known,) = mg.text.explain(model, tokenizer, text[:most], **how)
    assert f"only {most} of 40" in cut.notes[0]
    assert torch.equal(cut.values, known.values)


def test_the_model_is_left_as_found(load, untouched_generators):
    model, tokenizer = load("DistilBertForSequenceClassification")
    weight = model.get_input_embeddings().weight
    before = weight.detach().clone(), weight.requires_grad, model.training
    with untouched_generators():
        mg.text.explain(model, tokenizer, SENTENCES[:2], max_evaluations=34)
    assert torch.equal(weight, before[0])
    assert (weight.requires_grad, model.training) == before[1:]
    assert weight.grad is None
    assert not any(part._forward_hooks for part in model.modules())


def test_progress_counts_all_texts():
    seen = []
    mg.text.explain(
        Bytes().eval(), as_bytes, SENTENCES, "simple-gradient",
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen[-1] == (len(SENTENCES), len(SENTENCES))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_byte_classifier(data_folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(data_folder / "models")])
    magika = importlib.import_module("bytes_magika")

    def tokenizer(text):
        own = text.strip().encode()
        ids = magika.read_bytes(text.encode()).tolist()
        gap = len(ids) - 2 * len(own)
        at = [index for index, letter in enumerate(text.strip()) for _ in letter.encode()]
        spans = [(index, index + 1) for index in at]
        return {
            "input_ids": ids,
            "attention_mask": [1] * len(own) + [0] * gap + [1] * len(own),
            "offset_mapping": spans + [(0, 0)] * gap + spans,
        }  # each byte is read twice, from the beginning and from the end

    text = "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))"
    (found,) = mg.text.explain(
        magika.network(), tokenizer, text, labels=magika.LABELS, groups="words", sigma=0,
        rho=0.01, max_evaluations=16,
    )  # fmt: skip
    assert found.prediction == "python"
    assert len(found.tokens) == 2 * len(text)
    assert "".join(word.text for word in found.words) == text
    assert "".join(piece.text for piece in found._pieces()[0]) == text
    assert 0 < int((found.word_values != 0).sum()) <= 0.2 * len(found.words)
