"""References to the three papers: the numbered item exists there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder, pattern in (("src", "*.py"), ("docs", "*.md"), ("benchmarks", "*.py"))
    for path in (ROOT / folder).rglob(pattern)
)

# What each paper numbers: equations, definitions and so on up to the last one; sections by name.
PAPERS = {
    r"(?<!Sparse )MoreauGrad|Zhang and Farnia": {
        "equation": 9, "definition": 5, "theorem": 2, "corollary": 2, "proposition": 1,
        "algorithm": 1, "figure": 8, "table": 0,
        "section": {"1", "2", "3", "3.1", "3.2", "4", "5", "6", "6.1", "6.2", "6.3", "6.4", "7"},
        "appendix": {"A", "A.1", "A.2", "A.3", "B", "B.1", "B.2"},
    },
    r"CASO|Singla": {
        "equation": 31, "definition": 4, "theorem": 5, "corollary": 1, "proposition": 1,
        "algorithm": 0, "figure": 16, "table": 3,
        "section": {"1", "2", "3", "3.1", "3.2", "3.3", "4", "4.1", "5", "6"},
        "appendix": {*"ABCDEFGH", *(f"A.{n}" for n in range(1, 6)),
                     *(f"{part}.{n}" for part in "FG" for n in range(1, 4))},
    },
    r"AdvGrad|Gong": {
        "equation": 3, "definition": 1, "theorem": 0, "corollary": 0, "proposition": 4,
        "algorithm": 0, "figure": 16, "table": 6,
        "section": {"1", "2", "3", "3.1", "3.2", "3.3", "4", "4.1", "4.2", "4.3", "5", "5.1",
                    "5.2", "5.3", "6"},
        "appendix": {*"ABC", *(f"A.{n}" for n in range(1, 5)), *(f"B.{n}" for n in range(1, 9)),
                     "C.1", "C.1.1", "C.2", *(f"C.2.{n}" for n in range(1, 8)), "C.3", "C.3.1"},
    },
}  # fmt: skip
NUMBER = r"\(?[A-H]?\.?\d*(?:\.\d+)*\)?"
ITEM = re.compile(
    r"\b(equation|eq\.|definition|theorem|corollar(?:y|ies)|proposition|algorithm|figure|table|"
    rf"section|appendix)s? ({NUMBER}(?:(?:,| and| to) (?=[(\d]|[A-H]\b){NUMBER})*)",
    re.IGNORECASE,
)
CLAUSE = re.compile(r"[;\n]\s*\n|; |(?<=[a-z)\d])\. (?=[A-Z])")


def items(text: str) -> list[tuple[str, str, str]]:
    """(paper, kind, number) of all references of a text, each clause to the paper named last."""
    found = []
    for clause in CLAUSE.split(text):
        named = [
            (match.start(), paper)
            for paper in PAPERS
            for match in re.finditer(rf"(?:{paper})(?=[^a-z])", clause)
        ]
        for match in ITEM.finditer(clause):
            before = [paper for start, paper in sorted(named) if start < match.start()]
            for number in re.findall(r"[A-H](?:\.\d+)*|\d+(?:\.\d+)*", match[2]):
                if before:
                    kind = match[1].lower().replace("eq.", "equation").replace("ies", "y")
                    found.append((before[-1], kind, number))
    return found


def exists(paper: str, kind: str, number: str) -> bool:
    known = PAPERS[paper][kind]
    return number in known if isinstance(known, set) else 1 <= float(number) <= int(str(known))


def test_references_are_read() -> None:
    text = (
        "Source: MoreauGrad definitions 4 and 6, eq. (10); as a perturbation (AdvGrad section 4.1,"
        "\nappendix B.9). Of Singla et al. (2019), equation (5), theorem 3."
    )
    moreau, caso, advgrad = PAPERS
    assert items(text) == [
        (moreau, "definition", "4"), (moreau, "definition", "6"), (moreau, "equation", "10"),
        (advgrad, "section", "4.1"), (advgrad, "appendix", "B.9"),
        (caso, "equation", "5"), (caso, "theorem", "3"),
    ]  # fmt: skip
    assert [exists(*item) for item in items(text)] == [True, False, False, True, False, True, True]


def test_what_is_referred_to_exists() -> None:
    found = [
        (path.relative_to(ROOT).as_posix(), *item)
        for path in FILES
        for item in items(path.read_text("utf-8"))
    ]
    assert len(found) > 80
    assert [item for item in found if not exists(*item[1:])] == []


def test_no_specification_is_referred_to_that_is_not_here() -> None:
    assert [path for path in FILES if re.search(r"\bSPEC\b", path.read_text("utf-8"))] == []
