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
    published: {IWAE-10: "-84.82"}          # a number to stand beside it, with its source in the text
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

STUDIES = Path(__file__).parent / "studies"
_KEYS = {"title", "text", "verdict", "common", "seeds", "evaluate", "rows", "published"}


@dataclass(frozen=True)
class Study:
    """See the module's head."""

    name: str
    title: str
    rows: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    common: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    text: str = ""
    verdict: str = ""
    published: dict[str, str] = field(default_factory=dict)

    def words(self, row: str) -> list[str]:
        """The words of a row for `metvae train`, without its seed."""
        chosen = self.rows[row]
        # An experiment comes first, so that what all rows share has the last word over its defaults.
        return sorted([*chosen, *self.common], key=lambda word: not word.startswith("experiment="))


class StudyError(ValueError):
    """A study that is not there, or a file that is none."""


def names() -> list[str]:
    """Of the studies there are."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def load_study(name: str) -> Study:
    """The study of this name.

    Raises:
        StudyError: there is none, or its file has other keys
    """
    if name not in names():
        raise StudyError(f"no study {name!r}; there are {', '.join(names())}")
    content = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(STUDIES / f"{name}.yaml")))
    if unknown := set(content) - _KEYS:
        raise StudyError(
            f"studies/{name}.yaml: unknown {', '.join(sorted(unknown))}; there are {', '.join(sorted(_KEYS))}"
        )
    if stray := set(content.get("published", {})) - set(content["rows"]):
        raise StudyError(f"studies/{name}.yaml: published numbers of no row: {', '.join(sorted(stray))}")
    return Study(
        name=name,
        title=content["title"],
        rows={label: tuple(words) for label, words in content["rows"].items()},
        seeds=tuple(content["seeds"]),
        common=tuple(content.get("common", ())),
        evaluate=tuple(content.get("evaluate", ())),
        text=content.get("text", ""),
        verdict=content.get("verdict", ""),
        published=content.get("published", {}),
    )
