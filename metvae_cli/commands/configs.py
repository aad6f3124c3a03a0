"""`metvae configs`: what there is to choose from, and copies of it to start one's own from."""

import argparse
import shlex
import shutil
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from metvae_cli.commands.one_line_parser import OneLineParser
from metvae_cli.errors import ConfigError
from metvae_cli.paths import config_dir

EPILOG = """\
examples:
  metvae configs list sampler
  metvae configs show sampler=hmc
  metvae configs copy mine sampler=hmc

A copied choice needs a name of its own, since a shipped one of the same name comes first:
  mv mine/sampler/hmc.yaml mine/sampler/my_hmc.yaml
  metvae train --config-dir mine sampler=my_hmc
"""


class Choice(NamedTuple):
    """One YAML file of one group: `name` is what stands behind `group=` on the command line."""

    group: str
    name: str
    path: Path

    @property
    def description(self) -> str:
        """The file's first comment that is not an instruction to Hydra; empty where there is none."""
        for line in self.path.read_text(encoding="utf-8").splitlines():
            text = line.lstrip("# ").strip()
            if line.startswith("#") and text and not text.startswith("@package"):
                return text
        return ""


def main(argv: list[str]) -> int:
    """Run `metvae configs list|show|copy`; return the exit status.

    Raises:
        ConfigError: there is no such group or choice, or a copy would overwrite a file.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    choices = find_choices(config_dir())
    if arguments.action == "list":
        print_list(select(choices, arguments.group) if arguments.group else choices)
    elif arguments.action == "show":
        sys.stdout.write(find(choices, arguments.choice).path.read_text(encoding="utf-8"))
    else:
        wanted = [find(choices, word) for word in arguments.choices]
        copy(wanted, arguments.destination, force=arguments.force)
    return 0


def _parser() -> argparse.ArgumentParser:
    """Describe the three actions and their arguments."""
    parser = OneLineParser(
        prog="metvae configs",
        description="List, show or copy the configs that ship with metvae.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,show,copy}")
    lister = actions.add_parser("list", help="print every choice of every group, with one line on each")
    lister.add_argument("group", nargs="?", help="only this group, such as sampler")
    shower = actions.add_parser("show", help="print one choice's YAML")
    shower.add_argument("choice", metavar="group=choice", help="such as sampler=hmc; sampler/hmc means the same")
    copier = actions.add_parser("copy", help="copy configs to a folder for --config-dir")
    copier.add_argument("destination", type=Path, metavar="DEST", help="the folder; made where it is missing")
    copier.add_argument("choices", nargs="*", metavar="group=choice", help="what to copy; everything by default")
    copier.add_argument("--force", action="store_true", help="overwrite files that are there")
    return parser


def find_choices(root: Path) -> list[Choice]:
    """Return every choice under `root`, sorted, without the commands' own files and those of Hydra's groups."""
    found = []
    for path in sorted(root.rglob("*.yaml")):
        group = path.parent.relative_to(root).as_posix()
        if group != "." and not group.startswith("hydra/"):
            found.append(Choice(group, path.stem, path))
    return found


def select(choices: list[Choice], group: str) -> list[Choice]:
    """Return the choices of one group.

    Raises:
        ConfigError: there is no such group; the message names the nearest one.
    """
    group = group.rstrip("=/")
    selected = [choice for choice in choices if choice.group == group]
    if not selected:
        groups = sorted({choice.group for choice in choices})
        raise ConfigError(f"there is no group '{group}'; {_remedy(group, groups, 'the groups are')}")
    return selected


def find(choices: list[Choice], word: str) -> Choice:
    """Return the choice that `group=choice` or `group/choice` names; a trailing `.yaml` is ignored.

    Raises:
        ConfigError: there is no such group, or no such choice in it; the message names the nearest one.
    """
    group, separator, name = word.removesuffix(".yaml").rpartition("=" if "=" in word else "/")
    if not separator or not name:
        known = [choice for choice in choices if choice.name == word]
        hint = f"{known[0].group}={word}" if known else "sampler=hmc"
        raise ConfigError(f"'{word}' names no choice: write group=choice, such as {hint}")
    in_group = select(choices, group)
    for choice in in_group:
        if choice.name == name:
            return choice
    names = [choice.name for choice in in_group]
    raise ConfigError(f"{group} has no choice '{name}'; {_remedy(name, names, 'the choices are')}")


def _remedy(word: str, known: list[str], introduction: str) -> str:
    """Return the second half of an error message: the nearest known word, or all of them."""
    nearest = get_close_matches(word, known, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else f"{introduction} {', '.join(known)}"


def print_list(choices: list[Choice]) -> None:
    """Print one line for each choice: a table on a terminal, aligned plain text elsewhere."""
    rows = [(f"{choice.group}={choice.name}", choice.description) for choice in choices]
    if sys.stdout.isatty():
        _print_table(rows)
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, description in rows:
        print(f"{name:<{width}}  {description}".rstrip())


def _print_table(rows: list[tuple[str, str]]) -> None:
    """Print the rows as a table that fits the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("choice", no_wrap=True, style="cyan")
    table.add_column("what it is")
    group = ""
    for name, description in rows:
        if group and group != name.partition("=")[0]:
            table.add_row("", "")
        group = name.partition("=")[0]
        table.add_row(Text(name), Text(description))  # Text: brackets in a description are no markup
    Console().print(table)


def copy(choices: list[Choice], destination: Path, *, force: bool) -> None:
    """Copy the choices, or every shipped config when there are none, to a folder with the same sub-folders.

    Raises:
        ConfigError: a file is in the way and `force` is not given (nothing is copied then), or the folder
            cannot be written.
    """
    root = config_dir()
    sources = [choice.path for choice in choices] or sorted(root.rglob("*.yaml"))
    targets = [destination / source.relative_to(root) for source in sources]
    in_the_way = [target for target in targets if target.exists()]
    if in_the_way and not force:
        raise ConfigError(f"{in_the_way[0]} is there already; --force overwrites it, or name another folder")
    try:
        for source, target in zip(sources, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    except OSError as error:
        raise ConfigError(f"cannot copy to {destination}: {error}") from error
    for target in targets:
        print(target)
    print(f"\n{_next_step(choices, destination)}", file=sys.stderr)


def _next_step(choices: list[Choice], destination: Path) -> str:
    """Return what to do with the copies, given that Hydra prefers shipped files to those in --config-dir."""
    if not choices:
        return f"edit them, then: metvae train --config-path {shlex.quote(str(destination.resolve()))}"
    group, name, folder = choices[0].group, choices[0].name, shlex.quote(str(destination))
    return (
        f"give what you edit a name of its own (a shipped choice of the same name comes first), such as "
        f"{group}/my_{name}.yaml, then: metvae train --config-dir {folder} {group}=my_{name}"
    )
