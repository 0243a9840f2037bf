"""Packages that only some uses need, and the extra of this package that installs each."""

from __future__ import annotations

import importlib
from types import ModuleType


def required(module: str, extra: str, what: str) -> ModuleType:
    """Import a module. what: needs it, for the message.

    Errors: ModuleNotFoundError for a package that is not installed, with the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{what} needs {error.name}, which is not installed: pip install 'moreaugrad[{extra}]'",
            name=error.name,
        ) from error
