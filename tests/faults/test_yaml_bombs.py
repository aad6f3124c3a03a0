"""Configurations that unpack to more than they say, by aliases, depth or size: refused in little memory."""

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
