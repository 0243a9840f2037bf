"""Each bad input has one error that says what was expected and what to do."""

import pytest
import torch
from pandas import DataFrame
from torch import nn

import moreaugrad as mg
from text_models import Bytes, as_bytes

BERT = "BertForSequenceClassification"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("", "at least one token"),
        (["film", " \n "], r"texts\[1\]"),
        ([], "at least one text"),
        (("a", "b"), "tuple in the list"),
        ({"text": "a"}, "got dict"),
        (DataFrame({"review": ["film"]}), r"frame\['review'\].*got DataFrame"),
        (b"film", "got bytes"),
        (3, "got int"),
        (["film", None], "None as text 1"),
        ([("a", "b", "c")], "as text 0"),
        ([("film", 2)], "as text 0"),
        (["wonderful film " * 60], "truncate=True"),
    ],
)
def test_texts(texts, words, load):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        mg.text.explain(*load(BERT), texts, "simple-gradient")
    assert str(caught.value).startswith("texts")


def test_the_tokenizer_of_another_model(load):
    (model, _), (_, other) = load(BERT), load("RobertaForSequenceClassification")
    assert len(other) > model.config.vocab_size
    with pytest.raises(ValueError, match=rf"tokenizer.*{model.config.vocab_size}.*{len(other)}"):
        mg.text.explain(model, other, "film")
    with pytest.raises(ValueError, match=r"ids from 0 to .* tokenizer"):
        mg.text.explain(model, lambda text: [1, model.config.vocab_size, 2], "film")
    with pytest.raises(ValueError, match="ids from 0 to 255 of the tokenizer"):
        mg.text.explain(Bytes().eval(), lambda text: [1, -1], "film")


def test_a_tokenizer_with_far_fewer_tokens(load):
    (_, tokenizer), (model, _) = load(BERT), load("DistilBertForSequenceClassification")
    large = type(model)(type(model.config)(**{**model.config.to_dict(), "vocab_size": 400})).eval()
    with pytest.warns(UserWarning, match="tokenizer: it has .* the model 400"):
        mg.text.explain(large, tokenizer, "film", "simple-gradient")


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (None, "got NoneType"),
        ("bert", "got str"),
        (lambda text: [0.5], "integers"),
        (lambda text: [[1, 2]], "integers"),
        (lambda text: torch.tensor([[1, 2]]), "integers"),
        (lambda text: {"ids": [1]}, "input_ids"),
        (lambda text: {"input_ids": [1, 2], "attention_mask": [1]}, "2 numbers in attention_mask"),
        (lambda text: 1 / 0, "ZeroDivisionError"),
        (lambda text: {"input_ids": [1, 2], "attention_mask": [0, 0]}, "at least one token"),
    ],
)
def test_tokenizers(tokenizer, words):
    with pytest.raises((TypeError, ValueError), match=words):
        mg.text.explain(Bytes().eval(), tokenizer, "film")


def test_models(load, transformers):
    model, tokenizer = load(BERT)
    with pytest.raises(TypeError, match="model: expected a torch module"):
        mg.text.explain("bert", tokenizer, "film")
    with pytest.raises(TypeError, match="pipeline"):
        mg.text.explain(model, "film")
    with pytest.raises(ValueError, match="training mode"):
        mg.text.explain(type(model)(model.config).train(), tokenizer, "film")
    with pytest.raises(ValueError, match=r"one nn.Embedding, .* got none: give layer="):
        mg.text.explain(nn.Linear(2, 2), as_bytes, "film")
    with pytest.raises(ValueError, match=r"layer: expected .* vector for each token"):
        mg.text.explain(model, tokenizer, "film", layer="classifier")
    with pytest.raises(ValueError, match="no module 'embed'"):
        mg.text.explain(model, tokenizer, "film", layer="embed")
    config = type(model.config)(**{**model.config.to_dict(), "id2label": {0: "a", 1: "b"}})
    question = transformers.BertForQuestionAnswering(config).eval()
    with pytest.raises(TypeError, match="logits"):
        mg.text.explain(question, tokenizer, "film")


def test_a_model_with_an_encoder_and_a_decoder(transformers):
    """Its common table of token vectors need not run, the encoder's runs once."""
    heads = {f"{part}_{kind}": 2 for part in ("encoder", "decoder")
             for kind in ("layers", "attention_heads", "ffn_dim")}  # fmt: skip
    config = transformers.BartConfig(
        vocab_size=256, d_model=8, eos_token_id=0, pad_token_id=1, **heads
    )
    model = transformers.BartForSequenceClassification(config).eval()
    layer = "model.encoder.embed_tokens"

    def tokenizer(text):
        return [*text.encode(), 0]

    with pytest.raises(ValueError, match=rf"layer: .*'model.shared' ran 0 times: .*{layer}"):
        mg.text.explain(model, tokenizer, "film", "simple-gradient")
    (found,) = mg.text.explain(model, tokenizer, "film", "simple-gradient", layer=layer)
    assert bool((found.values != 0).any())


def test_a_model_without_a_padding_token(load):
    model, tokenizer = load("GPT2ForSequenceClassification")
    config = type(model.config)(**{**model.config.to_dict(), "pad_token_id": None})
    with pytest.raises(ValueError, match=r"set model.config.pad_token_id"):
        mg.text.explain(type(model)(config).eval(), tokenizer, "film")


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        (BERT, "goood", "did you mean 'good'"),
        (BERT, 3, "from 0 to 2"),
        (BERT, -1, "from 0 to 2"),
        (BERT, True, "got bool"),
        (BERT, 0.5, "got float"),
        (BERT, ("good", 1), "got tuple"),
        (BERT, [0, 1], "1 entries, one for each text"),
        ("BertForTokenClassification", None, "classifies tokens"),
        ("BertForTokenClassification", "good", "classifies tokens"),
        ("BertForTokenClassification", ("good", "actors"), "occurs once"),
        ("BertForTokenClassification", ("good", 9), "a token from 0 to"),
        ("GPT2LMHeadModel", "", "at least one token"),
        ("GPT2LMHeadModel", 10**6, "from 0 to"),
        ("GPT2LMHeadModel", ("a", 1), "got tuple"),
    ],
)
def test_targets(name, target, words, load):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        mg.text.explain(*load(name), "film", "simple-gradient", target=target)
    assert str(caught.value).startswith("target: ")


def test_labels_that_are_not_known():
    with pytest.raises(ValueError, match="give labels="):
        mg.text.explain(Bytes().eval(), as_bytes, "film", target="good")
    with pytest.raises(ValueError, match="labels: expected one for each of 2"):
        mg.text.explain(Bytes().eval(), as_bytes, "film", labels=["a", "b", "c"])
    for wrong in ("ab", {0: "bad", 1: "good"}, [0, 1]):
        with pytest.raises(TypeError, match="labels: expected a list of names"):
            mg.text.explain(Bytes().eval(), as_bytes, "film", labels=wrong)
    (found,) = mg.text.explain(
        Bytes().eval(), as_bytes, "film", "simple-gradient", labels=["a", "b"], target="b"
    )
    assert found.explanation.target.tolist() == [1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": "letters"}, "groups: expected one of tokens, words"),
        ({"values": "mean"}, "values: expected one of"),
        ({"method": "grad-cam"}, "method: .* grad-cam"),
        ({"method": "simple"}, "method: expected one of"),
        ({"sparsity": 2}, "sparsity"),
        ({"colour": 2}, "no setting 'colour'"),
        ({"ids": [1, 2]}, "ids: expected 1 numbers"),
    ],
)
def test_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        mg.text.explain(Bytes().eval(), as_bytes, "film", **settings)


def test_words_need_offsets():
    def without(text):
        return {name: own for name, own in as_bytes(text).items() if name != "offset_mapping"}

    with pytest.raises(ValueError, match=r"groups: expected 'tokens'.*offset_mapping"):
        mg.text.explain(Bytes().eval(), without, "film", groups="words")
    (found,) = mg.text.explain(Bytes().eval(), without, "film", "simple-gradient")
    assert found.tokens == tuple(str(code) for code in b"film")
    assert found.words == ()
    assert found.to_pandas()["word"].isna().all()
    assert "102" in found.to_terminal()


def test_scores_of_a_phrase(load):
    model, tokenizer = load("GPT2LMHeadModel")
    with pytest.raises(ValueError, match=r"score of a phrase.*probability"):
        mg.text.explain(model, tokenizer, "the", "simple-gradient", target=" very, very good",
                        score="margin")  # fmt: skip
