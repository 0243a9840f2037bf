"""Small random models of text: of transformers with their tokenizers in folders, and of bytes."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from moreaugrad.models.packages import import_torchvision

SENTENCES = [
    "A truly wonderful film, not boring at all.",
    "The plot is dull and the actors aren't good.",
    "wonderful actors",
    "I'd watch this film again: it is very, very good!",
    "a boring film",
    "Paris is the capital of France",
]
WIDTH = 16
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 40}  # fmt: skip
LABELS = {0: "bad", 1: "good", 2: "so-so"}


def hugging_face():
    """The module transformers, which imports torchvision if it is installed; skips without it."""
    pytest.importorskip("transformers")
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


def word_piece(transformers, folder: Path) -> None:
    """Every letter, some parts of words and some words; other words are cut into letters."""
    words = ["film", "good", "boring", "wonder", "##ful", "paris", "the", "is", "act", "##ors"]
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += [f"##{letter}" for letter in letters] + words
    tokenizer = transformers.BertTokenizerFast(vocab={token: at for at, token in
                                                      enumerate(vocabulary)})  # fmt: skip
    tokenizer.save_pretrained(folder)


def byte_pairs(transformers, folder: Path, kind: str) -> None:
    from tokenizers import ByteLevelBPETokenizer

    own = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if kind == "Roberta" else ["<|endoftext|>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(SENTENCES * 3, vocab_size=330, special_tokens=own,
                                show_progress=False)  # fmt: skip
    folder.mkdir(exist_ok=True)
    trained.save_model(str(folder))
    fast = getattr(transformers, f"{kind}TokenizerFast")
    fast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")).save_pretrained(
        folder
    )


def write(transformers, folder: Path, name: str) -> None:
    """A model of that class and its tokenizer in a folder."""
    kind = next(kind for kind in ("DistilBert", "Bert", "Roberta", "GPT2") if name.startswith(kind))
    if kind in ("Bert", "DistilBert"):
        word_piece(transformers, folder)
    else:
        byte_pairs(transformers, folder, kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sizes = dict(SIZES)
    if kind == "DistilBert":
        sizes = {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
                 "max_position_embeddings": 40}  # fmt: skip
    if kind == "GPT2":
        sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 40,
                 "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip
    if kind == "Roberta":
        sizes |= {"max_position_embeddings": 42, "pad_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), id2label=LABELS, label2id={v: k for k, v in LABELS.items()},
        **sizes,
    )  # fmt: skip
    module = getattr(transformers, name)(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # far enough from zero that texts differ
        for weight in module.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.25)
    module.save_pretrained(folder)


class Bytes(nn.Module):
    """Two classes of a text, from its bytes and their mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 6)
        self.mix = nn.Conv1d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 2)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask[:, None, :].float()
        found = torch.tanh(self.mix(self.embedding(ids).mT * real)) * real
        out: Tensor = self.head(found.sum(2) / real.sum(2))
        return out


def as_bytes(text: str, length: int = 0) -> dict[str, list]:
    """Bytes of a text, padded with 7 to a length."""
    own = list(text.encode())
    padding = max(0, length - len(own))
    at = [index for index, letter in enumerate(text) for _ in letter.encode()]
    return {
        "input_ids": own + [7] * padding,
        "attention_mask": [1] * len(own) + [0] * padding,
        "offset_mapping": [(index, index + 1) for index in at] + [(0, 0)] * padding,
    }
