"""Words against signatures: every key of the configuration is an argument of the class or function it configures.

There is one statement of each key, its type and its range: the constructor's. This file binds a node of the resolved
configuration to a signature and says in one line what does not fit.
"""

import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from metvae_cli.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Spine:
    """The keys at the top of a configuration.

    Args:
        seed: of the weights, the order of the data and all noise
        latent_dim: D
        plugins: the user's modules whose public classes may stand in `_target_`
        resume: directory of a run to go on with, or null
        sweep: what is said about a whole sweep: `SweepKeys`

    Raises:
        ValueError: a number is out of range
    """

    seed: int
    latent_dim: int
    plugins: Sequence[str] = ()
    resume: str | None = None
    sweep: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.resume is not None:
            raise ValueError(f"resume={self.resume}: belongs on the command line as it is, resume=DIR, not into a file")
        check_seed(self.seed)
        call(SweepKeys, self.sweep, "sweep")
        if self.latent_dim < 1:
            raise ValueError(f"latent_dim={self.latent_dim}: must be at least 1")


@dataclass(frozen=True)
class SweepKeys:
    """The keys of the node `sweep`.

    Args:
        resume: directory of a sweep to go on with, or null

    Raises:
        ValueError: it reached a job, which it does only from a file
    """

    resume: str | None = None

    def __post_init__(self) -> None:
        if self.resume is not None:
            raise ValueError(f"resume={self.resume}: belongs on the command line, and not into a file")


def check_seed(seed: int) -> None:
    """Raise ValueError where a seed is out of range."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: must lie between 0 and {2**32 - 1}")


def call(target: Callable[..., T], given: Mapping[str, Any], where: str, wired: Mapping[str, Any] | None = None) -> T:
    """Call `target` with the keys of a node and those wired values that its signature asks for.

    Args:
        target: a class or function
        given: the node's keys, checked against the signature
        where: the node's place, for messages; empty at the top
        wired: values that the program knows (latent_dim, event_shape, ...), passed where they are asked for

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a ValueError of the target
    """
    arguments = check(target, given, where, wired or {})
    try:
        return target(**arguments)
    except ValueError as error:
        raise ConfigError(key_name(where, with_place(where, given, str(error)))) from error


def check(target: Callable[..., Any], given: Mapping[str, Any], where: str, wired: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for `target`, type-checked. Raises ConfigError."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    signature = inspect.signature(target).parameters
    parameters = {name: parameter for name, parameter in signature.items() if parameter.kind not in variadic}
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    for key in given:
        if key not in parameters or key in wired:
            settable = [name for name in parameters if name not in wired]
            raise ConfigError(f"{key_name(where, key)}: unknown key{did_you_mean(key, settable)}")
    arguments = {name: value for name, value in wired.items() if name in parameters}
    for key, value in given.items():
        if not fits(value, hints.get(key, Any)):
            raise ConfigError(f"{key_name(where, key)}={shown(value)}: {expectation(value, hints[key])}")
        arguments[key] = value
    for name, parameter in parameters.items():
        if name not in arguments and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{key_name(where, name)}: must be given")
    return arguments


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of the annotated type. An integer is a float; a boolean is no number."""
    origin = get_origin(hint)
    if origin is Annotated:
        return fits(value, get_args(hint)[0])
    if hint is Any or (isinstance(hint, type) and hint not in (int, float, bool, str)):
        return True
    if origin is Literal:
        return value in get_args(hint)
    if origin in (Union, types.UnionType):
        return any(value is None if option is types.NoneType else fits(value, option) for option in get_args(hint))
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(fits(entry, get_args(hint)[0]) for entry in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def expectation(value: Any, hint: Any) -> str:
    """What was expected, in words: those that a type is annotated with, if it is."""
    if get_origin(hint) is Annotated:
        return f"expected {get_args(hint)[1]}"
    if get_origin(hint) is Literal:
        choices = [str(choice) for choice in get_args(hint)]
        near = difflib.get_close_matches(str(value), choices, n=1)
        return f"expected one of {', '.join(choices)}" + (f"; did you mean {near[0]}?" if near else "")
    if get_origin(hint) in (Union, types.UnionType):
        lists = [option for option in get_args(hint) if isinstance(value, list | tuple) and _is_list_of_choices(option)]
        if lists:
            return expectation(value, lists[0])
        return "expected " + " or ".join(_word(option) for option in get_args(hint))
    if isinstance(value, list | tuple) and _is_list_of_choices(hint):
        (choice,) = get_args(hint)
        wrong = next(entry for entry in value if not fits(entry, choice))
        return f"{shown(wrong)}: {expectation(wrong, choice)}"
    return f"expected {_word(hint)}"


def _is_list_of_choices(hint: Any) -> bool:
    return any(get_origin(entry) is Literal for entry in get_args(hint))


def _word(hint: Any) -> str:
    if _is_list_of_choices(hint):
        return f"a list, like [{','.join(get_args(get_args(hint)[0])[:2])}]"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    if get_origin(hint) is not None and issubclass(get_origin(hint), Mapping):
        return "keys of its own, like node.key=value"
    if get_origin(hint) is not None:
        return "a list of integers, like [1,2]" if get_args(hint)[0] is int else "a list, like [a,b]"
    return words.get(hint, str(hint))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?`, or the known words if none is near and they are few."""
    # A key is more likely one of its own node than one of another length.
    known = [name for name in known if not name.rpartition(".")[2].startswith("_")]
    siblings = [name for name in known if name.count(".") == word.count(".")]
    near = difflib.get_close_matches(word, siblings, n=1) or difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}" if 0 < len(known) <= 12 else ""


def key_name(where: str, key: str) -> str:
    """The dotted name of a key."""
    return f"{where}.{key}" if where else key


def with_place(where: str, keys: Iterable[str], message: str) -> str:
    """A message in which every `key=value` after a space is as it is typed: the keys of a node follow its place."""
    own = "|".join(map(re.escape, keys))
    return re.sub(rf"(?<=[ (])({own})=", rf"{where}.\1=", message) if where and own else message


def shown(value: Any) -> str:
    """A value as the user would type it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
