"""The lazy torchvision import: usable afterwards, and nothing defined or hidden where it should not be."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from metvae_cli import torchvision_import
from metvae_cli.torchvision_import import import_torchvision


class CountedLibrary:
    """Stands in for torch.library.Library and records what was defined."""

    def __init__(self, namespace: str, kind: str) -> None:
        assert (namespace, kind) == ("torchvision", "DEF")
        self.schemas: list[str] = []

    def define(self, schema: str) -> None:
        self.schemas.append(schema)


def replace_import(monkeypatch: pytest.MonkeyPatch, outcomes: list[Exception | ModuleType]) -> None:
    """Let each import of torchvision end in the next of `outcomes`; failures leave a module behind."""
    remaining = iter(outcomes)

    def attempt(name: str) -> ModuleType:
        assert "torchvision.half" not in sys.modules, "an attempt started from a half-imported package"
        outcome = next(remaining)
        if isinstance(outcome, Exception):
            monkeypatch.setitem(sys.modules, "torchvision.half", ModuleType("torchvision.half"))
            raise outcome
        return outcome

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib, "import_module", attempt)
    monkeypatch.setattr(torch.library, "Library", CountedLibrary)


def test_data_sets_and_image_grids_work(tmp_path: Path) -> None:
    torchvision = import_torchvision()
    assert torchvision is import_torchvision() is sys.modules["torchvision"]
    images = torch.rand(4, 1, 8, 8)
    assert torchvision.utils.make_grid(images, nrow=2).shape == (3, 22, 22)
    torchvision.utils.save_image(images, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 0
    assert importlib.import_module("torchvision.datasets").MNIST is torchvision.datasets.MNIST
    assert importlib.import_module("torchvision.utils") is torchvision.utils


def test_missing_operators_are_defined_and_the_import_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchvision")
    errors = [RuntimeError(f"operator torchvision::{name} does not exist") for name in ("nms", "qnms")]
    replace_import(monkeypatch, [*errors, module])
    assert import_torchvision() is module
    assert module._placeholder_operators.schemas == ["nms(...) -> ...", "qnms(...) -> ..."]


def test_nothing_is_defined_where_the_import_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchvision")
    replace_import(monkeypatch, [module])
    assert import_torchvision() is module
    assert not hasattr(module, "_placeholder_operators")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator torchvision::nms does not exist, nor does the moon"),
        RuntimeError("operator other::nms does not exist"),
        ImportError("No module named 'torchvision'"),
    ],
)
def test_other_errors_pass_through(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    replace_import(monkeypatch, [error])
    with pytest.raises(type(error)) as caught:
        import_torchvision()
    assert caught.value is error


def test_retries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    count = torchvision_import.MAX_OPERATORS + 1
    replace_import(monkeypatch, [RuntimeError(f"operator torchvision::a{i} does not exist") for i in range(count)])
    with pytest.raises(RuntimeError, match=f"torchvision::a{count - 1} "):
        import_torchvision()


def test_an_operator_that_stays_missing_is_not_defined_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_import(monkeypatch, [RuntimeError("operator torchvision::nms does not exist") for _ in range(2)])
    with pytest.raises(RuntimeError, match="torchvision::nms"):
        import_torchvision()
