"""`metvae evaluate run=DIR`: log-likelihoods with standard errors, diagnostics of sampler and latents.

What is done is in `evaluate_run.py`; it is imported late, so that help and misspelt words answer without torch.
"""

import sys

from omegaconf import DictConfig

from metvae_cli.commands.hydra_entry import is_sweep, named_plugins, output_folder
from metvae_cli.commands.own_directory import refuse_directory, refuse_named_directory
from metvae_cli.commands.run_or_sweep import run_or_sweep
from metvae_cli.commands.stored_words import store_words
from metvae_cli.errors import ConfigError, Interrupted
from metvae_cli.paths import discard_run


def main(argv: list[str]) -> int:
    """Evaluate; returns the exit status."""
    refuse_named_directory("evaluate", argv)
    try:
        return run_or_sweep("evaluate", argv, task)
    except Interrupted as interrupted:
        print(f"metvae: stopped by {interrupted}; what was done by then is kept", file=sys.stderr)
        return 128 + interrupted.signum


def task(config: DictConfig) -> float | None:
    """One job of Hydra's; returns the first estimate's mean log-likelihood, which a sweeper may maximise."""
    from metvae_cli.build import load_run
    from metvae_cli.commands.evaluate_likelihood import check_proposal
    from metvae_cli.commands.evaluate_request import read_request
    from metvae_cli.commands.evaluate_run import evaluate
    from metvae_cli.plain_config import plain

    folder = output_folder()
    refuse_directory("evaluate", folder)
    try:
        settings = plain(config)
        request = read_request(settings)
        run = load_run(request.run, request.checkpoint, request.device, named_plugins(), request.general.threads)
        check_proposal(run, request)
    except ConfigError:
        if not is_sweep():
            discard_run(folder, "evaluate")
        raise
    store_words(config, folder)
    return evaluate(run, request, settings, folder)
