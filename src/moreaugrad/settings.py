"""Dataclasses whose settings are documented where they are declared, and checked when given."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from functools import cache
from typing import Any, get_type_hints

from moreaugrad.registry import check_settings


class Checked(ABCMeta):
    """Of dataclasses whose settings are checked before an instance is made.

    Errors: ValueError for a plain value of another type than declared, as `check_settings` has it.
    """

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        hints = _hints(cls)
        known = {name: value for name, value in settings.items() if name in hints}
        check_settings(cls.__name__, list(hints), hints, known)
        return super().__call__(*args, **settings)


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)
