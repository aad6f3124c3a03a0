"""Sheets as text: for a terminal, Markdown and LaTeX."""

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from metvae_cli.comparison.tables import Cell, Sheet

if TYPE_CHECKING:
    from rich.table import Table

_LABEL = 14
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def terminal(sheets: Sequence[Sheet], lines: Sequence[str], file: TextIO) -> None:
    """Print tables as wide as the terminal, the best in bold; where there is no terminal, with a star.

    Raises:
        BrokenPipeError: nobody reads it
    """
    from rich.console import Console

    console = Console(file=file)
    try:
        for place, sheet in enumerate(sheets):
            if place:
                console.print()
            wide = _natural_width(sheet, star=not console.is_terminal)
            narrow = console.is_terminal and wide > console.width
            if narrow:
                sheet = replace(sheet, columns=tuple(re.sub(r"([/\-_])", r"\1 ", title) for title in sheet.columns))
            widths = _narrowed(sheet, console.width) if narrow else None
            console.width = max(console.width, _room(widths) if widths else wide)
            table = _table(sheet, widths, star=not console.is_terminal)
            console.print(table)
            for note in sheet.notes:
                console.print(f"  {note}", markup=False, highlight=False, soft_wrap=True)
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    except SystemExit:  # rich's answer to a closed pipe
        raise BrokenPipeError from None


def _table(sheet: Sheet, widths: Sequence[int] | None, *, star: bool) -> "Table":
    """A sheet for rich, with columns as wide as they need to be if no widths are given."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    marked = any(cell.best for row in sheet.rows for cell in row)
    best = ("; * best" if star else "; best in bold") if marked else ""
    table = Table(title=sheet.title + best, title_justify="left", title_style="", box=box.SIMPLE_HEAD)
    for place, title in enumerate(sheet.columns):
        justify = "right" if place else "left"
        table.add_column(Text(title), justify=justify, overflow="fold", width=widths[place] if widths else None)
    for row in sheet.rows:
        table.add_row(*(Text(_starred(cell, star), style="bold green" if cell.best else "") for cell in row))
    return table


def _columns(sheet: Sheet, *, star: bool) -> list[list[str]]:
    """The texts of each column, its heading first."""
    return [[title, *(_starred(row[place], star) for row in sheet.rows)] for place, title in enumerate(sheet.columns)]


def _natural_width(sheet: Sheet, *, star: bool) -> int:
    """What a sheet needs if nothing in it is broken."""
    return _room([max(map(len, texts)) for texts in _columns(sheet, star=star)])


def _narrowed(sheet: Sheet, room: int) -> list[int]:
    """Widths of columns with which the sheet fits: the longest word of each, and more where there is room.

    Numbers come first and break nowhere else than at ±; then labels, which break anywhere if they must; then headings.
    """
    columns = _columns(sheet, star=False)
    widths = [max((len(word) for text in texts for word in text.split()), default=1) for texts in columns]
    widths[0] = min(widths[0], _LABEL)
    left = room - _room(widths)
    cells = [max(map(len, texts[1:]), default=1) for texts in columns]
    wanted = [*list(enumerate(cells))[1:], (0, cells[0]), *((i, len(texts[0])) for i, texts in enumerate(columns))]
    for place, width in wanted:
        given = max(min(left, width - widths[place]), 0)
        widths[place] += given
        left -= given
    return widths


def _room(widths: Sequence[int]) -> int:
    """Width of a table: each column has a space on either side and a line, or its place, between."""
    return sum(widths) + 3 * len(widths) + 1


def plain(sheets: Sequence[Sheet], lines: Sequence[str]) -> str:
    """The same as text for a file."""
    text = io.StringIO()
    terminal(sheets, lines, text)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def markdown(sheets: Sequence[Sheet], lines: Sequence[str]) -> str:
    """Tables of GitHub's Markdown, the best in bold."""
    parts = []
    for sheet in sheets:
        rows = [
            "| " + " | ".join(_markdown(column) for column in sheet.columns) + " |",
            "|---|" + "---:|" * (len(sheet.columns) - 1),
        ]
        for row in sheet.rows:
            cells = [f"**{_markdown(cell.text)}**" if cell.best else _markdown(cell.text) for cell in row]
            rows.append("| " + " | ".join(cells) + " |")
        caption = f"{_markdown(sheet.title[:1].upper() + sheet.title[1:])}."
        parts += [caption, "\n".join(rows), *(_markdown(note) for note in sheet.notes)]
    if lines:
        parts.append("\n".join(f"- {_markdown(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def latex(sheets: Sequence[Sheet], lines: Sequence[str]) -> str:
    """Tables that need the package booktabs, the best in bold; what is not finished stands in comments."""
    parts = ["% needs \\usepackage{booktabs}"]
    for sheet in sheets:
        rows = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in sheet.rows]
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(sheet.title[:1].upper() + sheet.title[1:])}.}}",
            rf"\begin{{tabular}}{{l{'r' * (len(sheet.columns) - 1)}}}",
            r"\toprule",
            " & ".join(_escaped(column) for column in sheet.columns) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip {_escaped(note)}" for note in sheet.notes),
            r"\end{table}",
        ]
    return "\n".join([*parts, *(f"% {' '.join(line.split())}" for line in lines)]) + "\n"


def _starred(cell: Cell, star: bool) -> str:
    return f"{cell.text} *" if star and cell.best else cell.text


def _markdown(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text)


def _latex(cell: Cell) -> str:
    text = _escaped(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else text


def _escaped(text: str) -> str:
    """Text in which LaTeX reads nothing of its own; minus signs as such."""
    signed = re.sub(r"(?<![\w.\-=/])-(?=\d)", "\0", text)
    escaped = "".join(_LATEX.get(letter, letter) for letter in signed).replace("\0", "$-$")
    return escaped.replace("[", "{[}").replace("]", "{]}")  # a row that begins with [ would be an argument of \\
