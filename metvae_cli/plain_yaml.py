"""YAML that somebody else may have written: plain values in one mapping, of a bounded size once it is read."""

import io
from pathlib import Path

import yaml

_LARGEST = 2**20  # bytes; a configuration has some thousand
_DEEPEST = 50


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
