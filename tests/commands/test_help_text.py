"""The help of a command: word for word what Hydra prints from the same template, and Hydra's own where it is asked."""

import pytest

from metvae_cli import cli
from metvae_cli.commands.help_text import help_text, is_plain
from metvae_cli.commands.hydra_entry import run_once
from metvae_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["sampler=langevin", "seed=3", "experiment=digits_iwae"]),
        ("train", ["+dataset.new=1", "~trainer.profile"]),
        ("evaluate", ["run=some/run"]),
        ("sample", []),
        ("infer", ["target=ring"]),
    ],
)
def test_it_is_what_hydra_prints(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_once(lambda config: None, command, ["--help", *words])
    printed = capsys.readouterr().out
    assert is_plain(["--help", *words])
    assert f"{help_text(command, ['--help', *words])}\n" == printed
    assert help_text(command, ["--help", "seed=4"]) != help_text(command, ["--help"])


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        (["--help"], True),
        (["seed=1", "-h"], True),
        (["seed=1"], False),
        (["--help", "--resolve"], False),
        (["--help", "--config-dir", "mine", "sampler=of_mine"], False),
        (["--help", "hydra/help=default"], False),
        (["--help", "+hydra.x=1"], False),
    ],
)
def test_what_is_said_to_hydra_is_answered_by_hydra(words: list[str], plain: bool) -> None:
    assert is_plain(words) == plain


def test_a_wrong_word_beside_help_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"^smapler: unknown key; did you mean sampler\?$"):
        help_text("train", ["smapler=hmc", "--help"])
    assert cli.main(["train", "--help", "sampler=hcm"]) == 2
    assert capsys.readouterr().err == "metvae: error: sampler=hcm: no such choice; did you mean hmc?\n"
