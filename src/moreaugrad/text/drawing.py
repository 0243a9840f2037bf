"""Highlighted text: as HTML, with a terminal's colours, and as LaTeX."""

from __future__ import annotations

import html as markup
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from moreaugrad.files.foreign import readable
from moreaugrad.pictures.levels import BLUE_WHITE_ORANGE, SIGNED_PALETTES, palette

DEEPEST = 0.6
"""Opacity of the largest value's colour: the text on it can be read, in light and dark pages."""
LIGHTEST = 0.8
"""Depth of the largest value in the palette, on which black text can be read."""


@dataclass(frozen=True)
class Segment:
    """Consecutive characters that are drawn alike."""

    text: str
    value: float | None = None
    """None: the text has no value."""
    special: bool = False
    unread: bool = False
    """Whether the model did not see it."""


@dataclass(frozen=True)
class Drawn:
    """A text, cut into pieces, and what is written above and below it."""

    lines: Sequence[Sequence[Segment]]
    """The pieces of each sentence."""
    facts: Sequence[str]
    legend: str

    def depth(self, piece: Segment) -> float:
        """A piece's value over the largest magnitude in the text, [-1, 1]; 0 without a value."""
        if piece.value is None or not math.isfinite(piece.value) or not self._largest:
            return 0.0
        return piece.value / self._largest

    @cached_property
    def _largest(self) -> float:
        values = [piece.value for line in self.lines for piece in line if piece.value is not None]
        return max((abs(value) for value in values if math.isfinite(value)), default=0.0)

    @property
    def strongest(self) -> list[Segment]:
        """The pieces with a value other than zero, largest magnitude first."""
        found = [piece for line in self.lines for piece in line if self.depth(piece)]
        return sorted(found, key=lambda piece: -abs(self.depth(piece)))


def between(text: str) -> list[Segment]:
    """Characters that no token has."""
    return [Segment(text, unread=bool(text.strip()))] if text else []


FIGURE = "margin:0.8em 0;color:inherit;font-family:system-ui,sans-serif"
SMALL = "font-size:0.8em;opacity:0.8"
LINE = "line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere"
CHIP = (
    "border:1px dashed currentColor;border-radius:0.3em;padding:0 0.2em;margin:0 0.2em;"
    "font-size:0.75em"
)
PIECE = "border-radius:0.25em;padding:0.1em 0"


def html(several: Sequence[Drawn]) -> str:
    """Highlighted texts as HTML: no script, no style sheet, the page's own colours for the letters.

    A legend stands below the texts that it is for.
    """
    legends = [drawn.legend for drawn in several]
    last = [own != after for own, after in zip(legends, [*legends[1:], None], strict=True)]
    return "\n".join(map(_html_text, several, last))


def html_lines(drawn: Drawn) -> str:
    """The highlighted text alone."""
    return "".join(
        f'<div dir="auto" style="{LINE}">'
        + "".join(_html_piece(piece, drawn.depth(piece)) for piece in line)
        + "</div>"
        for line in drawn.lines
    )


def _html_text(drawn: Drawn, legend: bool) -> str:
    facts = " · ".join(map(markup.escape, map(visible, drawn.facts)))
    body = html_lines(drawn)
    below = f'<div style="{SMALL}">{markup.escape(drawn.legend)}</div>' if legend else ""
    return f'<div style="{FIGURE}"><div style="{SMALL}">{facts}</div>{body}{below}</div>'


def _html_piece(piece: Segment, depth: float) -> str:
    text = markup.escape(visible(piece.text))
    style = [CHIP] if piece.special else []
    if piece.unread:
        style.append("opacity:0.5")
    if depth:
        red, green, blue = SIGNS[depth > 0]
        style.append(f"{PIECE};background:rgba({red},{green},{blue},{DEEPEST * abs(depth):.3f})")
        style += [] if depth > 0 else ["text-decoration:underline"]
    title = "not read by the model" if piece.unread else ""
    if piece.value is not None:
        title = f"{piece.value:+.4g}"
    if not style and not title:
        return text
    return f'<span style="{";".join(style)}" title="{title}">{text}</span>'


SIGNS = tuple(tuple(bytes.fromhex(BLUE_WHITE_ORANGE.split()[place])) for place in (1, -3))
"""The colours of negative and of positive values."""


def _pale(depth: float) -> tuple[int, int, int]:
    """The palette's colour of a depth, pale enough for black text."""
    table = palette(*SIGNED_PALETTES)
    red, green, blue = table[round((LIGHTEST * depth + 1) / 2 * (len(table) - 1))]
    return int(red), int(green), int(blue)


def terminal(drawn: Drawn) -> str:
    """Highlighted text with ANSI escapes, and a line above it."""
    shown = [
        "".join(_terminal_piece(piece, drawn.depth(piece)) for piece in line)
        for line in drawn.lines
    ]
    return "\n".join([visible(" · ".join(drawn.facts)), *shown])


def _terminal_piece(piece: Segment, depth: float) -> str:
    codes = ["2"] if piece.special or piece.unread else []
    if depth:
        codes = ["30", "48;2;{};{};{}".format(*_pale(depth))] + ["4"] * (depth < 0)
    text = visible(piece.text)
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if codes else text


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "\n": r"\par ",
}  # fmt: skip


def latex(drawn: Drawn) -> str:
    """Highlighted text as LaTeX, a paragraph for each sentence."""
    lines = [
        "".join(_latex_piece(piece, drawn.depth(piece)) for piece in line) for line in drawn.lines
    ]
    return "{\\setlength{\\fboxsep}{1pt}" + "\\par\n".join(lines) + "\\par}"


def _latex_piece(piece: Segment, depth: float) -> str:
    text = "".join(LATEX.get(letter, letter) for letter in visible(piece.text))
    if depth < 0:
        text = rf"\underline{{{text}}}"
    if depth:
        text = rf"\colorbox[RGB]{{{','.join(map(str, _pale(depth)))}}}{{\strut {text}}}"
    return rf"\textcolor{{gray}}{{{text}}}" if piece.special or piece.unread else text


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal or a page would obey: control codes, and changes of direction."""


def visible(text: str) -> str:
    """The text with control characters as their codes."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", readable(text))
