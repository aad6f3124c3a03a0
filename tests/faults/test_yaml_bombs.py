"""Configurations that unpack to more than they say, by aliases, interpolations, depth or size: refused in little
memory, and soon.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.memory import MEGABYTE, peak_growth
from tests.faults.strangers import GLOBAL, directory, place, refusal
from tests.runs import metvae


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    with directory(tmp_path) as here:
        yield here


DOUBLED = {
    "lists": ("[x, x]", "[*a{0}, *a{0}]"),
    "mappings": ("{{x: 1, y: 1}}", "{{x: *a{0}, y: *a{0}}}"),
    "merged": ("{{x: 1}}", "{{<<: [*a{0}, *a{0}]}}"),
}
BOMBS = {
    **{
        name: "".join(f"a{i}: &a{i} {(again if i else first).format(i - 1)}\n" for i in range(30))
        for name, (first, again) in DOUBLED.items()
    },
    "itself": "a: &a [*a, *a]\n",
    "itself, later": "a: &a 1\nb: &a [*a, *a]\n",
    "deep": f"a: {'[' * 3000}{']' * 3000}\n",
    "long": "".join(f"a{i}: 1\n" for i in range(30_000)),
    "large": f"a: {'x' * 2**21}\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_unpacks_to_more_than_it_says_is_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    place(GLOBAL + BOMBS[kind])
    lines: list[str] = []

    def attempt() -> None:
        lines.append(refusal(capsys, "train", "--config-dir=menu", "experiment=hostile"))

    assert peak_growth(attempt) < 100 * MEGABYTE
    assert len(lines[0]) < 400
    assert "hostile.yaml: cannot be used, " in lines[0]


def test_aliases_of_a_few_values_are_the_users_own() -> None:
    place(f"{GLOBAL}trainer: {{max_iterations: &few 1, max_epochs: *few}}\n")
    assert metvae("train", "--config-dir=menu", "experiment=hostile", "--cfg", "job") == 0


def _twice(first: str, again: str) -> str:
    return "".join(f"a{i}: {again.format(i - 1) if i else first}\n" for i in range(30))


INTERPOLATED = {
    "texts": _twice("x", "${{a{0}}}${{a{0}}}"),
    "lists": _twice("[x, x]", "['${{a{0}}}', '${{a{0}}}']"),
    "mappings": _twice("{x: 1, y: 1}", "{{x: '${{a{0}}}', y: '${{a{0}}}'}}"),
    "by a resolver": _twice("x", '"${{oc.select:a{0}}}${{oc.select:a{0}}}"'),
    "from where it stands": "deep:\n  a0: x\n" + "".join(f"  a{i + 1}: ${{.a{i}}}${{.a{i}}}\n" for i in range(30)),
    "for Hydra": _twice("x", "${{a{0}}}${{a{0}}}") + "hydra: {run: {dir: 'outputs/${a29}'}}\n",
    "names in names": "z: 9\na: {9: x}\nname: ${a.${z}}\n",
    "no name at all": "z: 9\na9: x\nname: ${a${z}}\n",
    "a chain": "a0: x\n" + "".join(f"a{i}: ${{a{i - 1}}}\n" for i in range(1, 150)),
}


@pytest.mark.parametrize("kind", INTERPOLATED)
def test_interpolations_that_stand_for_more_than_they_say_are_refused(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place(GLOBAL + INTERPOLATED[kind])
    lines: list[str] = []

    def attempt() -> None:
        started = time.monotonic()
        lines.append(refusal(capsys, "train", "--config-dir=menu", "experiment=hostile"))
        assert time.monotonic() - started < 20

    assert peak_growth(attempt) < 100 * MEGABYTE
    assert len(lines[0]) < 400
    assert re.search(
        r"once it is resolved|one in another|write the key itself|full_key: name|recursion depth", lines[0]
    )


def test_interpolations_of_a_few_values_are_the_users_own() -> None:
    place(f"{GLOBAL}few: 1\ntrainer: {{max_iterations: '${{few}}', max_epochs: '${{.max_iterations}}'}}\n")
    assert metvae("train", "--config-dir=menu", "experiment=hostile", "--cfg", "job", "--resolve") == 0
