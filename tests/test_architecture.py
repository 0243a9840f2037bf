"""The shape of the package: imports point one way, files stay short, importing stays light."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import moreaugrad

SOURCE = Path(moreaugrad.__path__[0]).resolve()
ROOT = Path(__file__).parents[1]
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST = 350

# From low to high; a part imports from its own level and from those before it.
LEVELS = (
    {"extras"},
    {"settings"},
    {"plugins"},
    {"registry"},
    {"files"},
    {"score"},
    {"targets"},
    {"penalties"},
    {"curvature"},
    {"solvers"},
    {"pictures", "metrics"},
    {"explainers"},
    {"certificates", "attacks", "training"},
    {"models", "data"},
    {"text", "table"},
    {"reports"},
    {"runs"},
    {"explorer"},
    {""},  # the public names
    {"cli", "__main__"},
)
OPTIONAL = {"torchvision", "timm", "transformers", "lightning", "pytorch_lightning", "accelerate"}
LIGHT = OPTIONAL | {"matplotlib", "PIL", "scipy", "skimage", "cyclopts", "rich", "jinja2", "pandas"}


def module_name(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def imported(name: str) -> Iterator[tuple[str, ast.stmt]]:
    """What a module names in its import statements, wherever they stand, as full dotted names."""
    file = MODULES[name]
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base), node


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def level(module: str) -> int:
    for index, parts in enumerate(LEVELS):
        if part(module) in parts:
            return index
    raise AssertionError(f"{module} has no level: give it its place in LEVELS")


INTERNAL = {
    name: sorted({target for target, _ in imported(name) if target.split(".")[0] == "moreaugrad"})
    for name in MODULES
}


def test_imports_point_down() -> None:
    upward = [
        f"{name} imports {target}"
        for name, targets in INTERNAL.items()
        for target in targets
        if level(target) > level(name)
    ]
    assert not upward, upward


def test_imports_have_no_cycle() -> None:
    graph = {name: {target for target in INTERNAL[name] if target != name} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


PACKAGES = ("", ".attacks", ".certificates", ".data", ".explainers", ".metrics", ".models",
            ".penalties", ".table", ".targets", ".text", ".training")  # fmt: skip


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_those_of_the_stub(name: str) -> None:
    """All of them are there when they are asked for, and `dir` shows no others."""
    package = importlib.import_module(f"moreaugrad{name}")
    stub = Path(str(package.__file__)).with_suffix(".pyi").read_text(encoding="utf-8")
    named = [alias for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)
             for alias in node.names]  # fmt: skip
    assert all(alias.asname == alias.name for alias in named), "others are private to type checkers"
    assert dir(package) == sorted(alias.name for alias in named)
    for public in dir(package):
        value = getattr(package, public)
        assert value is not sys.modules.get(f"moreaugrad{name}.{public}") or name == "", public


def test_files_are_short() -> None:
    lines = {name: len(file.read_text("utf-8").splitlines()) for name, file in MODULES.items()}
    long = {name: count for name, count in lines.items() if count > LONGEST}
    assert not long, f"split them by what their parts are for: {long}"


def test_optional_packages_load_when_used() -> None:
    eager = [
        f"{name}, line {node.lineno}: {target}"
        for name in MODULES
        for target, node in imported(name)
        if target.split(".")[0] in OPTIONAL and node.col_offset == 0
    ]
    assert not eager, f"an extra is needed at import: {eager}"


def test_images_are_opened_in_one_place() -> None:
    """With the formats that are listed there; Pillow starts programs for others."""
    opening = re.compile(r"\bImage\.open\(|\bimread\(|\bimageio\b")
    found = [name for name, file in MODULES.items() if opening.search(file.read_text("utf-8"))]
    assert found == ["moreaugrad.files.foreign"]


def test_every_third_party_import_is_declared() -> None:
    distributions = importlib.metadata.packages_distributions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [line for name in extras.keys() - {"test", "docs", "dev"} for line in extras[name]]
    declared = {
        re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
        for line in (*project["dependencies"], *lines)
    } | {"triton"}  # which torch has where it can be used
    for name in MODULES:
        for target, _ in imported(name):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names or top == "moreaugrad":
                continue
            names = {item.lower().replace("_", "-") for item in distributions.get(top, [top])}
            assert names & declared, f"{name} imports {top}, which pyproject.toml does not declare"


# A call that draws from, seeds or sets a global generator.
SEEDING = re.compile(
    r"(torch|torch\.random|torch\.cuda|torch\.mps|random|np\.random|numpy\.random)"
    r"\.(manual_seed|manual_seed_all|seed|seed_all|set_rng_state|set_rng_state_all|setstate"
    r"|set_state|fork_rng)"
)
NUMPY_GLOBAL = re.compile(r"(np|numpy)\.random\.[a-z_]+")
NUMPY_KEYED = re.compile(r"(np|numpy)\.random\.(default_rng)")
PYTHON_GLOBAL = re.compile(r"random\.[a-z]+")
TORCH_DRAW = re.compile(
    r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial|poisson)"
    r"|.*\.(normal_|uniform_|bernoulli_|random_|exponential_|log_normal_|cauchy_|geometric_)"
)
TORCH_UNKEYED = re.compile(r"torch\.(rand_like|randn_like|randint_like)")


def draws_globally(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    if NUMPY_KEYED.fullmatch(name):
        return False
    unkeyed = (SEEDING, NUMPY_GLOBAL, PYTHON_GLOBAL, TORCH_UNKEYED)
    if any(pattern.fullmatch(name) for pattern in unkeyed):
        return True
    keyed = any(keyword.arg == "generator" for keyword in call.keywords)
    return bool(TORCH_DRAW.fullmatch(name)) and not keyed


def test_global_generators_are_left_alone() -> None:
    found = [
        f"{name}, line {node.lineno}: {ast.unparse(node.func)}"
        for name, file in MODULES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and draws_globally(node)
    ]
    assert not found, f"a global random state is used: {found}; draw from a keyed generator"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch.manual_seed(0)", True),
        ("torch.randn(3)", True),
        ("torch.randn(3, generator=g)", False),
        ("torch.randn_like(x)", True),
        ("x.normal_()", True),
        ("x.uniform_(0, 1, generator=g)", False),
        ("np.random.rand(3)", True),
        ("np.random.default_rng(0)", False),
        ("random.shuffle(x)", True),
        ("rng.random(3)", False),
        ("torch.zeros(3)", False),
    ],
)
def test_global_draws_are_recognised(text: str, expected: bool) -> None:
    assert draws_globally(ast.parse(text, mode="eval").body) is expected


def run_python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light() -> None:
    # Captum itself loads matplotlib and Pillow; what counts is what comes on top of it.
    loaded = run_python(
        """
        import sys
        import numpy, torch, captum.attr
        before = set(sys.modules)
        import moreaugrad
        commands = {"compare", "evaluate", "explain", "recommend", "report"}
        for name in set(moreaugrad.__all__) - commands - {"Recommendation", "Results"}:
            getattr(moreaugrad, name)
        print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
        """
    ).split()
    assert "moreaugrad" in loaded
    assert not LIGHT & set(loaded)


def test_help_answers_without_torch() -> None:
    loaded = run_python(
        """
        import contextlib, io, sys
        from moreaugrad.cli import main
        sys.argv = ["moreaugrad", "--help"]
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main()
        assert "explain" in text.getvalue(), text.getvalue()
        print(*sorted({name.split(".")[0] for name in sys.modules}))
        """
    ).split()
    assert "moreaugrad" in loaded
    assert not {"torch", "captum", "numpy", "matplotlib"} & set(loaded)
