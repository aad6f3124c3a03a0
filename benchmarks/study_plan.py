"""What a study runs: rows of words for `metvae train`, for several seeds, and one way to evaluate all of them.

A study is a file of `benchmarks/studies`:

    title: MNIST, 784-400 networks          # heading in docs/results.md
    text: ...                               # what stands above its table
    verdict: ...                            # what stands below it
    common: [dataset=mnist, ...]            # words of every row
    seeds: [0, 1, 2]
    evaluate: [estimators=[importance]]     # words of `metvae evaluate`, for every row
    rows:
      IWAE-10: [experiment=mnist_iwae]      # the words that make the row what it is
    grid:                                   # settings in which each row is trained; none is one setting
      D = 2: [latent_dim=2]
    grid_of: evaluate                       # its words are for `metvae evaluate`, of the same runs; else for `train`
    paired: true                            # of a grid: rows less the first, datum by datum
    detail: true                            # of a grid: a table with all columns for each setting
    figure: posteriors                      # in place of likelihoods: how near the posterior each row comes
    published: {IWAE-10: "-84.82"}          # a number to stand beside it, with its source in the text
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf

STUDIES = Path(__file__).parent / "studies"
_NEEDED = {"title", "rows", "seeds"}
_KEYS = {
    *_NEEDED,
    "text",
    "verdict",
    "common",
    "evaluate",
    "grid",
    "grid_of",
    "paired",
    "detail",
    "figure",
    "published",
}


class Unit(NamedTuple):
    """A run of a study. setting: "" where the study has no grid."""

    setting: str
    row: str
    seed: int


@dataclass(frozen=True)
class Study:
    """See the module's head."""

    name: str
    title: str
    rows: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    common: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    grid: dict[str, tuple[str, ...]] = field(default_factory=dict)
    grid_of: str = "train"
    paired: bool = False
    detail: bool = False
    figure: str = "likelihoods"
    text: str = ""
    verdict: str = ""
    published: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> tuple[str, ...]:
        """Labels of the grid."""
        return tuple(self.grid) or ("",)

    def units(self, rows: Sequence[str], seeds: Sequence[int], settings: Sequence[str] = ()) -> Iterator[Unit]:
        """The runs of these rows and settings (all); seeds are the outer loop, so that all rows have one seed early."""
        for seed in seeds:
            for setting in settings or self.settings:
                for row in rows:
                    yield Unit(setting, row, seed)

    def words(self, unit: Unit) -> list[str]:
        """The words of a run for `metvae train`, without its seed."""
        chosen = [*self.rows[unit.row], *self.common, *self._of(unit, "train")]
        # An experiment comes first, so that what all rows share has the last word over its defaults.
        return sorted(chosen, key=lambda word: not word.startswith("experiment="))

    def measure(self, unit: Unit) -> list[str]:
        """The words by which `metvae evaluate` measures a run."""
        return [*self.evaluate, *self._of(unit, "evaluate")]

    def _of(self, unit: Unit, command: str) -> tuple[str, ...]:
        """What the grid says to a command."""
        return self.grid.get(unit.setting, ()) if command == self.grid_of else ()

    def folder(self, unit: Unit) -> str:
        """The name of a run's folder: other words are another folder."""
        label = f"{unit.setting}_{unit.row}" if self._of(unit, "train") else unit.row
        return f"{_slug(label)}-{short_hash(self.words(unit))}_seed_{unit.seed}"


class StudyError(ValueError):
    """A study that is not there, or a file that is none."""


def names() -> list[str]:
    """Of the studies there are."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def load_study(name: str) -> Study:
    """The study of this name.

    Raises:
        StudyError: there is none, or its file lacks a key, has unknown ones, numbers of no row, a row with a comma,
            detail, pairs or a command without a grid, a grid of another command, or a figure that there is not
    """
    if name not in names():
        raise StudyError(f"no study {name!r}; there are {', '.join(names())}")
    content = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(STUDIES / f"{name}.yaml")))
    if wrong := set(content) - _KEYS or _NEEDED - set(content):
        kind = "unknown" if wrong <= set(content) else "missing"
        raise StudyError(f"studies/{name}.yaml: {kind} {', '.join(sorted(wrong))}; keys are {', '.join(sorted(_KEYS))}")
    if stray := set(content.get("published", {})) - set(content["rows"]):
        raise StudyError(f"studies/{name}.yaml: published numbers of no row: {', '.join(sorted(stray))}")
    if stray := [key for key in ("detail", "grid_of", "paired") if content.get(key) and not content.get("grid")]:
        raise StudyError(f"studies/{name}.yaml: {stray[0]} is of a grid, and there is none; take it out")
    if (of := content.get("grid_of", "train")) not in ("train", "evaluate"):
        raise StudyError(f"studies/{name}.yaml: grid_of: {of!r} is neither train nor evaluate")
    if (figure := content.get("figure", "likelihoods")) not in ("likelihoods", "posteriors"):
        raise StudyError(f"studies/{name}.yaml: figure: {figure!r} is neither likelihoods nor posteriors")
    if split := [label for label in content["rows"] if "," in label]:
        raise StudyError(f"studies/{name}.yaml: row {split[0]!r}: commas separate rows in --rows; take it out")
    return Study(
        name=name,
        title=content["title"],
        rows={label: tuple(words) for label, words in content["rows"].items()},
        seeds=tuple(content["seeds"]),
        common=tuple(content.get("common", ())),
        evaluate=tuple(content.get("evaluate", ())),
        grid={str(label): tuple(words) for label, words in content.get("grid", {}).items()},
        grid_of=of,
        paired=content.get("paired", False),
        detail=content.get("detail", False),
        figure=figure,
        text=content.get("text", ""),
        verdict=content.get("verdict", ""),
        published=content.get("published", {}),
    )


def short_hash(words: Sequence[str]) -> str:
    """Tells sequences of words apart, in the name of a folder."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]


def _slug(label: str) -> str:
    """A label as part of the name of a folder."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-.") else "_" for letter in label)
