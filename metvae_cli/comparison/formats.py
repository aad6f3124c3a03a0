"""Sheets as text: for a terminal, Markdown and LaTeX."""

import io
import re
from collections.abc import Sequence
from typing import TextIO

from metvae_cli.comparison.tables import Cell, Sheet

_NARROWEST = 120
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
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file)
    if not console.is_terminal:
        console.width = max(console.width, _NARROWEST)
    try:
        for sheet in sheets:
            marked = any(cell.best for row in sheet.rows for cell in row)
            best = "; best in bold" if console.is_terminal else "; * best"
            table = Table(title=sheet.title + (best if marked else ""), title_justify="left", title_style="")
            for place, column in enumerate(sheet.columns):
                table.add_column(Text(column), justify="right" if place else "left", overflow="fold")
            for row in sheet.rows:
                star = not console.is_terminal
                table.add_row(*(Text(_starred(cell, star), style="bold green" if cell.best else "") for cell in row))
            console.print(table)
            for note in sheet.notes:
                console.print(f"  {note}", markup=False, highlight=False, soft_wrap=True)
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    except SystemExit:  # rich's answer to a closed pipe
        raise BrokenPipeError from None


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
