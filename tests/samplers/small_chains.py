"""Digits experiments with small networks, whose chains are kept or computed again."""

from metvae_cli.build import Experiment, build_experiment
from tests.runs import configuration

SMALL = ("encoder.hidden=[8]", "decoder.hidden=[8]", "latent_dim=3", "trainer.device=cpu", "sampler.num_steps=3")


def make(*words: str, checkpoints: bool) -> Experiment:
    option = f"trainer.checkpoint_chain={str(checkpoints).lower()}"
    return build_experiment(configuration(*SMALL, *words, option), [])
