"""The API reference: a page for each public package, an entry for each public name.

What is public is what the packages list; a new name gets its entry without an edit here.
"""

import inspect
import re
from collections.abc import Hashable
from types import ModuleType
from typing import Any

import moreaugrad as mg
from moreaugrad.registry import Registry

PACKAGES = {
    module.__name__: module
    for module in (*(getattr(mg, name) for name in mg.__all__), mg)
    if inspect.ismodule(module)
}
"""The root comes last: what a package has too is described there."""
CODE_BLOCK = re.compile(r"^( *)(```.*?^\1```|<!-- .*? -->)$", re.DOTALL | re.MULTILINE)
NAME = re.compile(r"(?<![\[`\w])`((?:mg|moreaugrad)\.)?(\w+(?:\.\w+)*)(\([^`]*\))?`(?!\])")


def names(package: ModuleType) -> dict[str, Any]:
    """The public names of a package but for its modules."""
    found = {name: getattr(package, name) for name in package.__all__}
    return {name: part for name, part in found.items() if not inspect.ismodule(part)}


def entries() -> dict[str, str]:
    """Of each public name, `moreaugrad.MoreauGrad`, that of its entry in the reference."""
    found: dict[str, str] = {}
    first: dict[int, str] = {}
    for path, package in PACKAGES.items():
        for name, part in names(package).items():
            found[f"{path}.{name}"] = first.setdefault(id(part), f"{path}.{name}")
    return found


SUMMARIES = {
    row.load(): row.summary
    for rows in (mg.METHODS, mg.attacks.ATTACKS, mg.metrics.METRICS, mg.training.PROTOCOLS)
    for row in rows.values()
    if not row.settings
}
ENTRIES = entries()
SHORT = {path.partition(".")[2]: entry for path, entry in ENTRIES.items()}
"""Without `moreaugrad.`, as in `attacks.TopKAttack`."""
BARE = {
    entry.rpartition(".")[2]: entry
    for entry in ENTRIES.values()
    if re.search(r"[a-z]_[a-z]|^[A-Z]\w*[a-z]|^[A-Z]{4,}$|^L1$", entry.rpartition(".")[2])
}
"""Names that nothing else has, such as a setting or a word."""


def pages() -> dict[str, str]:
    """The Markdown of each page, by its place."""
    return {place(path): page(path) for path in sorted(PACKAGES)}


def place(path: str) -> str:
    """Of the page of a package."""
    return f"reference/{path.rpartition('.')[2] if '.' in path else 'index'}.md"


def page(path: str) -> str:
    """The package's docstring, a table of its names, and an entry for each that has it here."""
    package = PACKAGES[path]
    own = [name for name in names(package) if ENTRIES[f"{path}.{name}"] == f"{path}.{name}"]
    lines = [f"# {path.replace('moreaugrad', 'mg') if '.' in path else 'API reference'}", ""]
    if path == "moreaugrad":
        lines += [
            "Everything public, from `import moreaugrad as mg`. `help(mg.MoreauGrad)` prints the",
            "same text. The packages:",
            "",
            "| package | |",
            "|---|---|",
            *(
                f"| [`{name.replace('moreaugrad', 'mg')}`]({place(name)[10:]}) | {_first(part)} |"
                for name, part in PACKAGES.items()
                if name != path
            ),
            "",
        ]
    else:
        lines += [as_markdown(inspect.getdoc(package) or ""), ""]
    lines += ["| name | |", "|---|---|"]
    for name, part in names(package).items():
        lines.append(f"| [`{name}`][{ENTRIES[f'{path}.{name}']}] | {_first(part)} |")
    lines.append("")
    for title, kind in KINDS.items():
        chosen = [name for name in own if kind(getattr(package, name))]
        if chosen:
            lines += [f"## {title}", ""]
        for name in chosen:
            lines += [f"::: {path}.{name}", ""]
    return "\n".join(lines)


KINDS = {
    "Classes": inspect.isclass,
    "Functions": inspect.isfunction,
    "Values": lambda part: not inspect.isclass(part) and not inspect.isfunction(part),
}


def _first(part: Any) -> str:
    """What it is in a few words: of its row in a registry, or its docstring's first sentence."""
    if isinstance(part, Hashable) and part in SUMMARIES:
        summary = SUMMARIES[part]
        return _plain(summary[0].upper() + summary[1:] + ".").replace("|", "\\|")
    if isinstance(part, Registry):
        return f"The registry: `{'`, `'.join(part)}`."
    if not (inspect.isclass(part) or inspect.isfunction(part) or inspect.ismodule(part)):
        return ""
    text = " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split())
    sentence = re.match(r".*?[.:](?= [A-Z]|$)|.*", text)
    assert sentence is not None
    return _plain(sentence[0].rstrip(":")).replace("|", "\\|")


def as_markdown(text: str) -> str:
    """A docstring, which is plain text: examples as code, formulas as they are."""
    found = []
    for block in re.split(r"\n\n+", text):
        if block.startswith(">>>"):
            code = re.sub(r"^(>>>|\.\.\.) ?", "", block, flags=re.MULTILINE)
            found.append(f"```python\n{code}\n```")
        elif block.startswith("    "):
            found.append(block)
        else:
            found.append(with_links(_plain(block)))
    return re.sub(r"^(Source|Errors|Differs):", r"*\1:*", "\n\n".join(found), flags=re.MULTILINE)


def _plain(text: str) -> str:
    """Text outside of backticks, in which Markdown is to see no markup."""
    parts = text.split("`")
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(r"([*_])", r"\\\1", parts[at]).replace("<", "&lt;")
    return "`".join(parts)


def with_links(text: str) -> str:
    """Names of the library in backticks, in prose and tables, lead to their entries.

    Each once in a section; code, headings and what is a link already stay.
    """
    blocks = CODE_BLOCK.split(text)
    # Of each three parts: text, the block's indentation, the block.
    for at in range(0, len(blocks), 3):
        sections = re.split(r"^(?=#)", blocks[at], flags=re.MULTILINE)
        blocks[at] = "".join(map(_linked, sections))
    return "".join(blocks)


def _linked(section: str) -> str:
    end = section.find("\n") if section.startswith("#") else 0
    known: set[str] = set()

    def link(match: re.Match[str]) -> str:
        root, name, _ = match.groups()
        entry = SHORT.get(name) if root or "." in name else BARE.get(name)
        if entry is None or entry in known:
            return match[0]
        known.add(entry)
        return f"[{match[0]}][{entry}]"

    return section[:end] + NAME.sub(link, section[end:])
