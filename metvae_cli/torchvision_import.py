"""The only place that imports torchvision: lazily, and also where its compiled operators cannot be loaded."""

import importlib
import re
import sys
from types import ModuleType

import torch

MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")
MAX_OPERATORS = 16  # torchvision 0.28 stops at two; a bound so that an unforeseen failure cannot go on for ever


def import_torchvision() -> ModuleType:
    """The torchvision module, with `torchvision.datasets` and `torchvision.utils` ready to use.

    A CUDA build of torchvision beside a CPU-only torch stops importing at the first operator its compiled
    part would have defined, although data sets and image grids need none of them. On exactly that error the
    operator gets a schema without an implementation and the import is tried again; `torchvision.ops` stays
    unusable there and says so when called. Where the import succeeds nothing is defined. Any other error
    passes through.
    """
    library: torch.library.Library | None = None
    defined: list[str] = []
    while True:
        try:
            torchvision = importlib.import_module("torchvision")
            break
        except RuntimeError as error:
            missing = MISSING_OPERATOR.fullmatch(str(error))
            if missing is None or missing.group(1) in defined or len(defined) == MAX_OPERATORS:
                raise
            library = library or torch.library.Library("torchvision", "DEF")
            library.define(f"{missing.group(1)}(...) -> ...")
            defined.append(missing.group(1))
            _forget_half_imported()
    if library is not None:
        # The schemas live as long as the Library object, so the module that needs them owns it.
        setattr(torchvision, "_placeholder_operators", library)  # noqa: B010
    return torchvision


def _forget_half_imported() -> None:
    """Drop what a failed import left in sys.modules, so that the next attempt starts from nothing."""
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
