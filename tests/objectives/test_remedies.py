"""What an error about sampler and objective says to set, set: each of its alternatives builds."""

import re
from collections.abc import Sequence

import pytest

from metvae_cli.build import build_experiment
from metvae_cli.errors import ConfigError
from tests.runs import configuration
from tests.thinned import thinned

# Each with objectives that take it as it is.
SAMPLERS = {
    "none": "elbo iwae renyi cubo",
    "langevin": "metvae metvae_stopped",
    "langevin sampler.acceptance=none sampler.reverse=learned": "",
    "hmc": "metvae metvae_stopped",
    "hmc sampler.decisions=enumerated sampler.reverse=learned": "metvae metvae_stopped",
    "independent sampler.acceptance=none": "",
    "hmc_tempered": "annealed",
    "hmc_tempered sampler.acceptance=barker sampler.decisions=enumerated": "metvae metvae_stopped",
    "hmc_stopped": "metvae metvae_stopped",
    "hmc_stopped sampler.schedule=constant": "metvae metvae_stopped",
    "hmc_stopped sampler.acceptance=none": "",
}
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
@pytest.mark.parametrize("sampler", thinned(SAMPLERS, 3))
def test_some_alternative_is_accepted_and_the_others_say_what_is_left(sampler: str, objective: str) -> None:
    words = [*f"sampler={sampler}".split(), f"objective={objective}"]
    error = complaint(words)
    assert (error is None) == (objective in SAMPLERS[sampler].split()), error
    if error is not None:
        left = [complaint(remedied(words, remedy)) for remedy in remedies(error)]
        assert None in left, (error, left)
        assert sampler.count("=") or not any(left), (error, left)


def test_a_remedy_that_needs_a_second_one_is_rejected() -> None:
    words = ["sampler=hmc", "objective=elbo"]
    assert complaint(remedied(words, ["objective=annealed"])) is not None
