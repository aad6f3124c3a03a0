"""YAML that somebody else may have written: plain values in one mapping, of a bounded size once it is read."""

import io
from pathlib import Path

import yaml

_LARGEST = 2**20  # bytes; a configuration has some thousand
_DEEPEST = 50
_MOST_NODES = 20_000  # a shipped configuration has some hundred


def plain_yaml(path: Path) -> io.StringIO:
    """The text of a file, to be parsed. Nothing in it stands for anything else, as an alias does for a thousand lines.

    Raises:
        OSError: it cannot be read
        ValueError: it holds anything but plain values in a mapping, or too much
        yaml.YAMLError: it is no YAML
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST} bytes")
    text = content.decode()
    depth, first = 0, True
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise ValueError("it has tags or anchors, and must hold plain values only")
        if first and isinstance(event, yaml.NodeEvent):
            first = False
            if not isinstance(event, yaml.MappingStartEvent):
                raise ValueError("it holds no mapping")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if first:
        raise ValueError("it is empty")
    return io.StringIO(text)


def refuse_large(path: Path) -> None:
    """Raise ValueError for a file that says too much once its aliases, which may stand here, are what they stand for.

    An alias counts as all that its anchor holds: thirty lines of two aliases each are a thousand million values.
    What is no YAML is left to who reads it.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST} bytes")
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    try:
        for event in yaml.parse(content, Loader=yaml.SafeLoader):
            name, size = getattr(event, "anchor", None), 1
            if isinstance(event, yaml.CollectionStartEvent):
                sizes.pop(name or "", None)  # until its end the name stands for this one, which is not whole
                open_nodes.append((name, 1))
                name, size = None, 0
            elif isinstance(event, yaml.CollectionEndEvent):
                name, size = open_nodes.pop()
            elif isinstance(event, yaml.AliasEvent):
                if name not in sizes:
                    raise ValueError(f"the alias {name} stands for what holds it, or for nothing")
                name, size = None, sizes[name]
            elif not isinstance(event, yaml.ScalarEvent):
                continue
            if name is not None:
                sizes[name] = size
            open_nodes[-1] = (open_nodes[-1][0], open_nodes[-1][1] + size)
            if len(open_nodes) > _DEEPEST:
                raise ValueError(f"it is nested more than {_DEEPEST} deep")
            if open_nodes[-1][1] > _MOST_NODES:
                raise ValueError(f"it holds more than {_MOST_NODES} values, aliases counted as what they stand for")
    except yaml.YAMLError:
        return
