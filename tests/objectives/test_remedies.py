"""What an error about sampler and objective says to set, set: each of its alternatives builds."""

import re
from collections.abc import Sequence

import pytest

from metvae_cli.build import build_experiment
from metvae_cli.errors import ConfigError
from tests.runs import configuration

SAMPLERS = ("none", "langevin", "hmc", "hmc_tempered", "hmc_stopped")
OBJECTIVES = ("elbo", "iwae", "renyi", "cubo", "hoffman", "vcd", "annealed", "metvae", "metvae_stopped")
SMALL = ("encoder.hidden=[4]", "decoder.hidden=[4]", "trainer.device=cpu")


def complaint(words: Sequence[str]) -> str | None:
    """The error of a configuration, or None."""
    try:
        build_experiment(configuration(*words, *SMALL), [])
    except ConfigError as error:
        return str(error)
    return None


def remedies(error: str) -> list[list[str]]:
    """The words of each alternative of an error that ends in `set A B, or C`."""
    told = re.search(r"; set (.*)$", error)
    assert told, error
    alternatives = []
    for alternative in told[1].split(", or "):
        words = [word.rstrip(",") for word in re.findall(r"[a-z_.]+=\S+", alternative)]
        words += [f"{key}={least}" for key, least in re.findall(r"([a-z_.]+) to (\d+)", alternative)]
        alternatives.append(words)
    return alternatives


def remedied(words: Sequence[str], remedy: Sequence[str]) -> list[str]:
    """The words with those of a remedy in the place of what they change; another sampler has its own options."""
    told = {word.split("=")[0] for word in remedy}
    kept = [word for word in words if word.split("=")[0] not in told]
    return [word for word in kept if "sampler" not in told or not word.startswith("sampler.")] + list(remedy)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_alternative_is_accepted(sampler: str, objective: str) -> None:
    words = [f"sampler={sampler}", f"objective={objective}"]
    error = complaint(words)
    for remedy in remedies(error) if error else []:
        assert remedy, error
        assert complaint(remedied(words, remedy)) is None, f"{error} -> {remedy}"


def test_the_default_sampler_can_be_had_without_its_tests() -> None:
    words = ["objective=annealed", "sampler.acceptance=none"]
    error = complaint(words)
    assert error
    assert complaint(remedied(words, remedies(error)[1])) is None


def test_a_remedy_that_needs_a_second_one_is_rejected() -> None:
    words = ["sampler=hmc", "objective=elbo"]
    assert complaint(remedied(words, ["objective=annealed"])) is not None
