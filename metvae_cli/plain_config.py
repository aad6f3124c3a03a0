"""A configuration as plain containers, and how much it says once its interpolations are what they stand for.

OmegaConf puts an interpolation in each time it is met: thirty values that name the one before twice are a thousand
million. They are counted before they are put in.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metvae_cli.errors import ConfigError

_MOST_VALUES = 100_000  # a shipped configuration has some hundred
_LONGEST_CHAIN = 100
_WORD = re.compile(r"[\w.\[\]]+")
_NAME_WITHIN_A_NAME = re.compile(r"\$\{[\w.\[\]]*\$\{")

Path = tuple[str, ...]


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers. Raises ConfigError for a missing, broken or vast value."""
    try:
        refuse_unfolding(config)
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def refuse_unfolding(config: DictConfig) -> None:
    """Raise ConfigError for a configuration that is small as it stands and vast once it is resolved."""
    nodes = dict(_nodes(OmegaConf.to_container(config, resolve=False), ()))
    sizes: dict[Path, int] = {}
    for path in nodes:
        _size(path, nodes, sizes, ())


def _nodes(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    yield path, value
    for key, inner in _children(value):
        yield from _nodes(inner, (*path, key))


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), inner) for key, inner in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from ((str(place), inner) for place, inner in enumerate(value))


def _size(path: Path, nodes: Mapping[Path, Any], sizes: dict[Path, int], above: tuple[Path, ...]) -> int:
    if path in sizes:
        return sizes[path]
    if path in above:
        return 1  # a circle: OmegaConf says so
    if len(above) > _LONGEST_CHAIN:
        raise ConfigError(f"{'.'.join(path)}: more than {_LONGEST_CHAIN} interpolations, one in another")
    value, inside = nodes[path], (*above, path)
    parts = [(*path, key) for key, _ in _children(value)] or list(_named(path, value, nodes))
    size = 1 + sum(_size(part, nodes, sizes, inside) for part in parts)
    if size > _MOST_VALUES:
        raise ConfigError(f"{'.'.join(path)}: stands for more than {_MOST_VALUES} values once it is resolved")
    sizes[path] = size
    return size


def _named(path: Path, value: Any, nodes: Mapping[Path, Any]) -> Iterator[Path]:
    """The nodes that a text may stand for: any word of it that is a key, from the top or from where it stands."""
    if not isinstance(value, str) or "${" not in value:
        return
    if _NAME_WITHIN_A_NAME.search(value):
        raise ConfigError(f"{'.'.join(path)}={value[:80]}: the name of a key is interpolated; write the key itself")
    for word in _WORD.findall(value[value.index("${") :]):
        keys = tuple(key for key in re.split(r"[.\[\]]+", word) if key)
        starts = {path[:depth] for depth in range(len(path) + 1)}
        yield from (start + keys for start in starts if keys and start + keys in nodes)
