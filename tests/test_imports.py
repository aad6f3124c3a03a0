"""The shape of the package: which part may import which, and how long files and functions may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metvae_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
OTHERS = sorted(path for part in ("benchmarks", "tests") for path in (PACKAGE.parent / part).rglob("*.py"))
MAX_FILE_LINES = 320
MAX_FUNCTION_LINES = 45

# Each part with those directly below it. What is below those is allowed too; everything else is not.
BELOW: dict[str, set[str]] = {
    "cli": {"commands"},
    "commands": {"build", "build_inference", "comparison", "search", "paths"},
    "build_inference": {"build", "targets"},
    "build": {
        "gate",
        "schema",
        "paths",
        "stored_config",
        "data",
        "models",
        "training",
        "evaluation",
        "tracking",
    },
    "comparison": {"schema", "tracking"},
    "search": {"schema"},
    "gate": set(),
    "schema": set(),
    "paths": set(),
    "stored_config": {"plain_config", "plain_yaml", "tracking"},
    "plain_config": set(),
    "plain_yaml": set(),
    "tracking": set(),
    "training": {"objectives", "models", "data"},
    "evaluation": {"objectives", "models", "data", "targets"},
    "objectives": {"samplers"},
    "samplers": {"kernels", "models"},
    "kernels": {"densities", "bijections"},
    "models": {"densities", "bijections", "gaussians"},
    "bijections": {"coupling"},
    "coupling": {"coupling_directed"},
    "coupling_directed": set(),
    "targets": set(),
    "data": set(),
    "densities": {"scores"},
    "gaussians": {"scores"},
    "scores": set(),
}
FOR_EVERYONE = {"errors", "torchvision_import"}
# Third parties that only some parts may import: everything else lives without them.
ONLY_IN: dict[str, set[str]] = {
    "hydra": {"commands"},
    "omegaconf": {"build", "stored_config", "plain_config", "commands"},
    "optuna": {"search"},
    "torchvision": {"torchvision_import"},
}
# Parts that must load at once, so that `metvae --help` does, and `metvae compare` on a laptop of whoever reads results.
WITHOUT_TORCH = {"cli", "paths", "errors", "comparison", "search", "__init__"}


def allowed(part: str) -> set[str]:
    """The parts that `part` may import: itself, those for everyone, and all that is below it."""
    found, waiting = {part} | FOR_EVERYONE, [part]
    while waiting:
        below = BELOW.get(waiting.pop(), set()) - found
        found |= below
        waiting += below
    return found


def imported_modules(tree: ast.AST, module: list[str], *, is_package: bool) -> Iterator[str]:
    """Dotted names of all that a file imports, anywhere in it; `from x import y` counts as `x.y`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module if is_package else module[:-1]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def violations(path: Path, package: Path = PACKAGE) -> list[str]:
    """One line for each import of the file that the tables above forbid."""
    relative = path.relative_to(package)
    module = [package.name, *relative.with_suffix("").parts]
    is_package = module[-1] == "__init__"
    module = module[:-1] if is_package else module
    part = module[1] if len(module) > 1 else "__init__"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for name in imported_modules(tree, module, is_package=is_package):
        root, *rest = name.split(".")
        inside = root == package.name and rest and is_part(rest[0])
        if (
            (inside and rest[0] not in allowed(part))
            or (root in ONLY_IN and part not in ONLY_IN[root])
            or (root == "torch" and part in WITHOUT_TORCH)
        ):
            found.append(f"{relative.as_posix()} imports {name}")
    return found


def is_part(name: str) -> bool:
    """Whether a name directly below the package is one of its parts, not something in its __init__."""
    return name in BELOW or name in FOR_EVERYONE


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of each function, docstring excluded."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                length -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
            yield node.name, length


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE if PACKAGE in path.parents else PACKAGE.parent).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    assert violations(path) == []


def test_every_part_is_in_the_table() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert parts <= BELOW.keys() | FOR_EVERYONE


def test_the_table_has_no_circle() -> None:
    for part in BELOW:
        for below in allowed(part) - {part} - FOR_EVERYONE:
            assert part not in allowed(below), f"{part} and {below} may import each other"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("kernels/new.py", "from metvae_cli.samplers.chain import Sampler"),
        ("kernels/new.py", "import metvae_cli.objectives.weights"),
        ("kernels/new.py", "from metvae_cli import models"),
        ("kernels/new.py", "from ..samplers import chain"),
        ("kernels/__init__.py", "from ..samplers import chain"),
        ("kernels/new.py", "def f():\n    from metvae_cli.training import trainer"),
        ("densities.py", "from .kernels import base"),
        ("models/new.py", "from metvae_cli.kernels.base import Kernel"),
        ("data/new.py", "import metvae_cli.build"),
        ("training/new.py", "import hydra.utils"),
        ("build.py", "import hydra"),
        ("objectives/new.py", "from omegaconf import DictConfig"),
        ("schema.py", "from omegaconf import DictConfig"),
        ("models/new.py", "from torchvision import datasets"),
        ("cli.py", "import torch"),
        ("commands/new.py", "import optuna"),
        ("search/new.py", "from metvae_cli.training import trainer"),
        ("build.py", "from metvae_cli.commands import train"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, name: str, line: str) -> None:
    assert len(violations(fabricated(tmp_path, name, line), tmp_path / "metvae_cli")) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("kernels/new.py", "from metvae_cli.densities import Point"),
        ("kernels/new.py", "from . import base"),
        ("kernels/__init__.py", "from .base import Kernel"),
        ("samplers/new.py", "from ..densities import Point"),
        ("commands/new.py", "import hydra\nfrom metvae_cli.densities import Point"),
        ("data/new.py", "from metvae_cli.errors import ConfigError\nimport torch"),
        ("cli.py", "from metvae_cli import __version__"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, name: str, line: str) -> None:
    assert violations(fabricated(tmp_path, name, line), tmp_path / "metvae_cli") == []


def fabricated(folder: Path, name: str, text: str) -> Path:
    """A file of a package that exists only for one test."""
    path = folder / "metvae_cli" / name
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("path", [*FILES, *OTHERS], ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    too_long = [(name, length) for name, length in function_lengths(path) if length > MAX_FUNCTION_LINES]
    assert too_long == []


def test_a_long_function_is_found_and_its_docstring_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text('def f():\n    """One.\n\n    Two.\n    """\n' + "    f()\n" * 50, encoding="utf-8")
    assert list(function_lengths(path)) == [("f", 51)]


def test_no_file_is_called_utils() -> None:
    assert [path for path in [*FILES, *OTHERS] if path.stem in {"utils", "util", "helpers", "misc", "common"}] == []
