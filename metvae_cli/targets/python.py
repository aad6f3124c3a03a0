"""A density of the user's own, from a Python file that is named on the command line."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metvae_cli.targets.base import Target, Window, require_dim


class PythonDensity(Target):
    """A function z (..., D) -> (...), log-density up to a constant, in a file.

    To build one runs the file. Whoever builds from a configuration has to see to it that the user asked for that.

    Args:
        path: FILE.py:FUNCTION
        dim: D
        window: [left, right, bottom, top] of the first two coordinates: what pictures show and where chains start
        log_normalizer: log of the integral of the density where it is known, or null

    Raises:
        ValueError: no such file or function, or it is no log-density
    """

    def __init__(
        self,
        path: str | None,
        dim: int = 2,
        window: Sequence[float] = (-5.0, 5.0, -5.0, 5.0),
        log_normalizer: float | None = None,
    ) -> None:
        require_dim(dim, 2)
        if len(window) != 4 or not (window[0] < window[1] and window[2] < window[3]):
            raise ValueError(f"window={list(window)}: must be [left, right, bottom, top], like [-5,5,-5,5]")
        if path is None:
            raise ValueError("path=null: name a file and a function in it, like target.path=my_density.py:log_prob")
        self.dim = dim
        self.window = Window(*map(float, window))
        self.log_normalizer = log_normalizer
        self._function = load_function(path)
        self._check(path)

    def log_prob(self, z: Tensor) -> Tensor:
        """What the user's function says."""
        return self._function(z)

    def _check(self, path: str) -> None:
        """Try the function at a few places. Raises ValueError."""
        z = self.anywhere(60).reshape(20, 3, self.dim).requires_grad_()
        try:
            value = self._function(z)
        except Exception as error:  # it is the user's code
            raise ValueError(
                f"path={path}: fails for z of shape (20, 3, {self.dim}) ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(value, Tensor):
            raise ValueError(
                f"path={path}: gives a {type(value).__name__}, and must give a tensor with a gradient; compute it with "
                "torch functions of z"
            )
        if value.shape != (20, 3):
            raise ValueError(
                f"path={path}: must turn z of shape (20, 3, {self.dim}) into log-densities of shape (20, 3), not "
                f"{tuple(value.shape)}; sum over the last dimension, sum(-1)"
            )
        if bool(value.isnan().any() | (value == torch.inf).any()) or not bool(torch.isfinite(value).any()):
            raise ValueError(
                f"path={path}: is NaN, infinite or everywhere zero inside of target.window={list(self.window)}; a "
                "log-density is a number, or -inf where there is no mass"
            )
        if not value.requires_grad:
            raise ValueError(f"path={path}: has no gradient in z; compute it with torch functions, without .item()")


def load_function(path: str) -> Callable[[Tensor], Any]:
    """The function that FILE.py:FUNCTION names; runs the file. Raises ValueError."""
    place, colon, name = path.rpartition(":")
    file = Path(place).expanduser()
    if not colon or not place or not name.isidentifier():
        raise ValueError(f"path={path}: must be FILE.py:FUNCTION, like my_density.py:log_prob")
    if not file.is_file():
        raise ValueError(f"path={path}: there is no file {place}")
    spec = importlib.util.spec_from_file_location(f"metvae_user_density_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"path={path}: {place} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is the user's code
        raise ValueError(f"path={path}: {place} cannot be run ({type(error).__name__}: {error})") from error
    function = getattr(module, name, None)
    if not callable(function):
        there = f": {name} is no function" if function is not None else f" has no function {name}"
        known = [entry for entry, value in vars(module).items() if callable(value) and not entry.startswith("_")]
        raise ValueError(f"path={path}: {place}{there}; it has {', '.join(known) or 'none'}")
    return function
