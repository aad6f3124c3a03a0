"""Pictures of docs/results.md that belong to no study, as benchmarks/figures.yaml describes them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from benchmarks.modes import table_of_modes

FIGURES = Path(__file__).parent / "figures.yaml"


@dataclass(frozen=True)
class Figure:
    """commands: what makes it, in {folder}. pictures, table: files that they leave there and that are kept."""

    name: str
    title: str
    text: str
    commands: tuple[str, ...]
    pictures: tuple[str, ...]
    table: str = ""

    def kept(self, name: str) -> str:
        """The name under which a file is kept in docs/results."""
        return f"figure_{self.name}_{Path(name).name}"

    @property
    def shown_commands(self) -> str:
        """The commands as one types them, a line each: kept beside what they made, which other commands did not."""
        return "\n".join(command.format(folder=f"outputs/figures/{self.name}") for command in self.commands)

    def section(self, records: Path) -> str:
        """Its part of the page; what has not been made, or not by these commands, is said to be missing."""
        lines = [f"### {self.title}", "", self.text.strip(), ""]
        told = records / self.kept("commands.txt")
        current = told.is_file() and told.read_text(encoding="utf-8").strip() == self.shown_commands
        made = [name for name in self.pictures if current and (records / self.kept(name)).is_file()]
        lines += [f"![{self.title}](results/{self.kept(name)})" for name in made] or ["Not made yet."]
        if self.table and current and (records / self.kept(self.table)).is_file():
            lines += ["", *table_of_modes(json.loads((records / self.kept(self.table)).read_text(encoding="utf-8")))]
        return "\n".join([*lines, "", "```", self.shown_commands, "```", ""])


def load_figures() -> Iterator[Figure]:
    """All of them, in the order of the page."""
    content = cast("dict[str, dict[str, Any]]", OmegaConf.to_container(OmegaConf.load(FIGURES)))
    for name, one in content.items():
        commands, pictures = tuple(one["commands"]), tuple(one["pictures"])
        yield Figure(name, one["title"], one["text"], commands, pictures, one.get("table", ""))
