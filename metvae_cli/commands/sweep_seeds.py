"""Jobs of a sweep that have several seeds each (`trainer.replicas=R`): no seed is to be trained twice."""

from collections.abc import Sequence
from itertools import pairwise

from omegaconf import DictConfig

from metvae_cli.errors import ConfigError

_SEED, _REPLICAS = "seed", "trainer.replicas"
_FEW = 6


def refuse_shared_seeds(jobs: Sequence[Sequence[str]], config: DictConfig) -> None:
    """Raise ConfigError where two jobs that differ in their seed alone would train one seed both.

    jobs: the words of each, in which what they sweep over has one value. config: of the first
    """
    alike: dict[tuple[str, ...], set[int]] = {}
    for words in jobs:
        seed = _last(words, _SEED)
        if seed is not None and seed.isdigit():
            alike.setdefault(tuple(word for word in words if _key(word) != _SEED), set()).add(int(seed))
    for words, found in alike.items():
        replicas = _last(words, _REPLICAS) or str(config.get("trainer", {}).get("replicas", 1))
        seeds = sorted(found)
        if replicas.isdigit() and any(later - seed < int(replicas) for seed, later in pairwise(seeds)):
            raise ConfigError(_shared(seeds, int(replicas)))


def _shared(seeds: Sequence[int], replicas: int) -> str:
    twice = next(later for seed, later in pairwise(seeds) if later - seed < replicas)
    apart = range(seeds[0], seeds[0] + len(seeds) * replicas, replicas)
    word = f"range({apart.start},{apart.stop},{replicas})" if len(seeds) > _FEW else ",".join(map(str, apart))
    return (
        f"trainer.replicas={replicas}: each job trains {replicas} seeds from its own on, so that seed {twice} would be "
        f"trained by two jobs; say seed={word}"
    )


def _last(words: Sequence[str], key: str) -> str | None:
    values = [word.partition("=")[2] for word in words if _key(word) == key]
    return values[-1] if values else None


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")
