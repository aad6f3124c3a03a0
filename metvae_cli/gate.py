"""The gate on `_target_`: a configuration names classes, and only these may be named.

Allowed are public classes that are defined in the parts of metvae_cli that hold components (data, models, kernels,
objectives, targets; not those that write files), or in a module that the user named in `plugins=[my_module]` on the
command line; of ours each group takes its own kind. The rule is an exact match of module and class; there is no prefix
match, so nothing that these modules import can be reached through them. Everything is checked before anything is built,
in configurations from files, from the command line and from the directory of an earlier run alike.
"""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from metvae_cli.errors import ConfigError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")
_PACKAGE = "metvae_cli"
_PARTS = ("data", "models", "kernels", "objectives", "targets")
# Of what is built: a class of another part is no such thing, and a target may run a file that the user names.
_PART_OF = MappingProxyType(
    {
        "dataset": "data",
        **dict.fromkeys(("prior", "encoder", "decoder", "likelihood", "initial"), "models"),
        "sampler": "kernels",
        "objective": "objectives",
        "target": "targets",
    }
)
_FORBIDDEN = ("_args_", "_partial_", "_recursive_", "_convert_", "_mode_")


def import_plugins(listed: Sequence[str], plugins: Sequence[str]) -> None:
    """Import the user's modules. Raises ConfigError for one that a configuration lists and the command line does not.

    Args:
        listed: the `plugins` of a configuration, whatever file it comes from
        plugins: modules that the user named on the command line
    """
    for name in listed:
        if name not in plugins:
            raise ConfigError(
                f"plugins=[{name}]: stands in a file; a module of yours is used only if named on the command line: "
                f"add plugins=[{','.join(listed)}] to it"
            )
    for name in plugins:
        _import_plugin(name)


def check_targets(config: Mapping[str, Any], plugins: Sequence[str]) -> None:
    """Raise ConfigError for the first `_target_` anywhere in the tree that is not allowed."""
    for where, node in _nodes(config, ""):
        for key in _FORBIDDEN:
            if key in node:
                raise ConfigError(f"{where}.{key}: is not used by metvae; remove it")
        if node.get("_target_") is not None:
            find_class(node["_target_"], where, plugins)


def find_class(target: Any, where: str, plugins: Sequence[str]) -> type:
    """The class that an allowed `_target_` names. Raises ConfigError."""
    place = f"{where}._target_={target}"
    module_name, _, class_name = str(target).rpartition(".")
    if not isinstance(target, str) or not _NAME.fullmatch(target):
        raise ConfigError(f"{place}: must be the dotted name of a public class")
    package, part = [*module_name.split("."), ""][:2]
    if not (package == _PACKAGE and part in _PARTS) and module_name not in plugins:
        raise ConfigError(
            f"{place}: refused; only public components of metvae_cli may be named, or of a module of your "
            "own that you name on the command line with plugins=[my_module]"
        )
    if package == _PACKAGE and part != _PART_OF.get(where, part):
        raise ConfigError(
            f"{place}: refused; {where} takes a class of {_PACKAGE}.{_PART_OF[where]}; `metvae configs list {where}` "
            "shows which there are"
        )
    found = getattr(_import(module_name, place), class_name, None)
    if not inspect.isclass(found) or found.__module__ != module_name:
        raise ConfigError(f"{place}: refused; {module_name} defines no public class {class_name}")
    if inspect.isabstract(found) or getattr(found, "_is_protocol", False):
        raise ConfigError(f"{place}: refused; {class_name} only says what such a class must have")
    return found


def _import(module_name: str, place: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{place}: there is no module {error.name}; is it on PYTHONPATH?") from None


def _nodes(value: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping in the tree, with its place."""
    if isinstance(value, Mapping):
        yield where, value
        for key, entry in value.items():
            yield from _nodes(entry, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _nodes(entry, f"{where}[{index}]")


def _import_plugin(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"plugins=[{name}]: there is no module {error.name}; is it on PYTHONPATH?") from None
    except Exception as error:  # it is the user's code
        raise ConfigError(f"plugins=[{name}]: cannot be imported ({type(error).__name__}: {error})") from error
