"""Words that a person guesses, held against the names that there are."""

from collections.abc import Collection

from metvae_cli.errors import ConfigError
from metvae_cli.schema import did_you_mean


def resolve(word: str, known: Collection[str], where: str) -> str:
    """The known name that a word means: itself, or the only one that ends in it.

    Args:
        word: as typed; `nll` means test/nll, `num_steps` sampler.num_steps; - and _ are the same
        known: the names
        where: what the word was given to, for the message, like --metric

    Raises:
        ConfigError: it means none of them, or several
    """
    for candidate in (word, word.replace("-", "_")):
        if candidate in known:
            return candidate
        ends = sorted(name for name in known if name.endswith((f"/{candidate}", f".{candidate}")))
        if len(ends) == 1:
            return ends[0]
        if ends:
            raise ConfigError(f"{where}={word}: could be {', '.join(ends)}; give the whole name")
    near = did_you_mean(word, sorted(known))
    if not near:
        tails = {name.replace("/", ".").rpartition(".")[2]: name for name in sorted(known)}
        closest = did_you_mean(word, list(tails)).removeprefix("; did you mean ").removesuffix("?")
        near = f"; did you mean {tails[closest]}?" if closest in tails else ""
    raise ConfigError(f"{where}={word}: unknown{near or '; --format json lists what each run has'}")
