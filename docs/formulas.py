"""Formulas as MathML, whose bars of norms and magnitudes every browser draws in their place."""

import re
import xml.etree.ElementTree as ET

from latex2mathml.converter import convert

BARS = {"\u2016", "\u2225", "|"}
RELATIONS = {"\u2aaf", "\u2ab0", "~"}
"""Signs that latex2mathml takes for letters, and sets without spaces."""
FENCE = re.compile(r"(\\left|\\right)?\s*(\\lVert|\\rVert|\\lvert|\\rvert|\\\||\\Vert|\\vert|\|)")
SPACE = "http://www.w3.org/1998/Math/MathML"

ET.register_namespace("", SPACE)


def mathml(latex: str, *, display: bool = False) -> str:
    """latex2mathml's output, with a form for each bar.

    latex2mathml writes opening and closing bars alike and leaves it to the browser to guess which
    is which: one with a subscript is then taken for an opening one, stretched and set below the
    line, or not drawn where the font has no larger glyph.
    Errors: ValueError for a command that is not known, and for bars that do not pair.
    """
    root = ET.fromstring(convert(latex, display="block" if display else "inline"))
    bars = [mo for mo in root.iter(f"{{{SPACE}}}mo") if (mo.text or "").strip() in BARS]
    forms = _forms(latex)
    if len(bars) != len(forms):
        raise ValueError(
            f"{len(forms)} bars are in this formula, {len(bars)} in its MathML: {latex}"
        )
    for mo, (form, grows) in zip(bars, forms, strict=True):
        mo.attrib |= {"form": form, "fence": "true", "lspace": "0", "rspace": "0"}
        mo.set("stretchy", "true" if grows else "false")
    for letter in list(root.iter(f"{{{SPACE}}}mi")):
        if letter.text in RELATIONS:
            letter.tag = f"{{{SPACE}}}mo"
            letter.attrib |= {"lspace": "0.28em", "rspace": "0.28em"}
    found = ET.tostring(root, encoding="unicode")
    if "\\" in found:
        raise ValueError(f"a command of this formula is not known to latex2mathml: {latex}")
    return found


def _forms(latex: str) -> list[tuple[str, bool]]:
    """Of each bar in order: "prefix" or "postfix", and whether it grows with what is inside."""
    found, opened = [], False
    for size, bar in FENCE.findall(latex):
        opens = size == r"\left" or bar in (r"\lVert", r"\lvert")
        if not size and bar not in (r"\lVert", r"\lvert", r"\rVert", r"\rvert"):
            opens = not opened  # the same sign opens and closes
        opened = opens
        found.append(("prefix" if opens else "postfix", bool(size)))
    if sum(form == "prefix" for form, _ in found) * 2 != len(found):
        raise ValueError(f"bars do not pair in this formula: {latex}")
    return found
