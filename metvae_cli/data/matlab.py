"""Reading MATLAB files: only the named arrays, and only if the shapes that the file declares are the expected ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metvae_cli.data.official import Root

NUMBERS = ("uint8", "int8", "uint16", "double", "single", "logical")
Shape = tuple[int, ...]


def declared(root: Root, path: Path) -> dict[str, tuple[Shape, str]]:
    """Shape and class of each array that the file says it holds, before any is read. Raises ConfigError."""
    from scipy.io import whosmat  # here: slow to import, and few data sets need it

    try:
        return {name: (tuple(map(int, shape)), kind) for name, shape, kind in whosmat(str(path))}
    except Exception as error:  # scipy raises whatever the damaged bytes lead it to
        raise root.unreadable(path, error) from error


def read_mat(root: Root, path: Path, expected: Mapping[str, Sequence[Shape]]) -> dict[str, np.ndarray]:
    """The named arrays of a MATLAB file.

    expected: for each name the shapes that it may have

    Raises ConfigError: an array missing, of another shape or no numbers, or a file that cannot be read.
    """
    from scipy.io import loadmat

    found = declared(root, path)
    for name, shapes in expected.items():
        if name not in found:
            raise root.damaged(path, f"an array {name!r}", ", ".join(found) or "none")
        shape, kind = found[name]
        if shape not in shapes or kind not in NUMBERS:
            choices = " or ".join(_shown(choice) for choice in shapes)
            raise root.damaged(path, f"{name!r} of {choices} numbers", f"{_shown(shape)} {kind}")
    try:
        arrays = loadmat(str(path), variable_names=list(expected))
        result = {name: np.asarray(arrays[name]) for name in expected}
    except Exception as error:  # as above
        raise root.unreadable(path, error) from error
    for name, array in result.items():
        if array.shape != found[name][0] or array.dtype.kind not in "uifb":
            raise root.damaged(path, f"{name!r} of {_shown(found[name][0])} numbers", f"{_shown(array.shape)}")
    return result


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))
