"""Models of transformers, loaded from folders."""

import pytest

from text_models import hugging_face, write


@pytest.fixture(scope="session")
def transformers():
    return hugging_face()


@pytest.fixture(scope="session")
def load(transformers, tmp_path_factory):
    """A function from the name of a class to its model and tokenizer, loaded from a folder."""
    root, written = tmp_path_factory.mktemp("hf"), {}

    def loaded(name: str):
        folder = root / name
        if name not in written:
            folder.mkdir()
            write(transformers, folder, name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        written[name] = getattr(transformers, name).from_pretrained(folder).eval(), tokenizer
        return written[name]

    return loaded
