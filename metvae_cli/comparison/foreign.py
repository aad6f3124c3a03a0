"""Files of runs that may be anybody's: of bounded size, with numbers that are numbers and printable text."""

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metvae_cli.errors import printable

LARGEST = 64 * 2**20  # bytes; of a run's own files the curves of a long run are the largest, with some megabytes
_DEEPEST = 50


def read_bounded(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it cannot be read
        ValueError: it is no regular file, which may never end, or too large
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    return content


def read_object(path: Path, damages: list[str]) -> dict[str, Any]:
    """The JSON object in a file; where there is none, empty, and a word added to the damages.

    What is no finite number, as JSON has it, is None.
    """
    try:
        text = read_bounded(path).decode()
        content = json.loads(text, parse_constant=lambda word: None, parse_float=_finite, parse_int=_integer)
        content = _printable(content, 0)
    except FileNotFoundError:
        damages.append(f"{path.name} is missing")
    except (OSError, ValueError, RecursionError) as error:
        damages.append(f"{path.name} cannot be read ({printable(str(error))})")
    else:
        if isinstance(content, dict):
            return content
        damages.append(f"{path.name} holds no JSON object")
    return {}


def mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; empty where there is none."""
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _integer(text: str) -> int | None:
    return int(text) if len(text) < 300 else None  # more does not fit into a float


def _printable(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    if isinstance(value, dict):
        return {_printable(key, depth): _printable(entry, depth + 1) for key, entry in value.items()}
    return [_printable(entry, depth + 1) for entry in value] if isinstance(value, list) else value
