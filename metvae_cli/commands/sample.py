"""`metvae sample run=DIR`: pictures of a trained model as PNG files, in TensorBoard and, if asked for, as arrays.

What is done is in `sample_run.py`; it is imported late, so that help and misspelt words answer without torch.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from metvae_cli.commands.hydra_entry import is_sweep, named_plugins, output_folder
from metvae_cli.commands.own_directory import refuse_directory, refuse_named_directory
from metvae_cli.commands.run_or_sweep import run_or_sweep
from metvae_cli.commands.stored_words import store_words
from metvae_cli.errors import ConfigError, Interrupted
from metvae_cli.paths import discard_run
from metvae_cli.schema import call


def main(argv: list[str]) -> int:
    """Draw; returns the exit status."""
    refuse_named_directory("sample", argv)
    try:
        return run_or_sweep("sample", argv, task)
    except Interrupted as interrupted:
        print(f"metvae: stopped by {interrupted}; the pictures made by then are whole", file=sys.stderr)
        return 128 + interrupted.signum


def task(config: DictConfig) -> None:
    """One job of Hydra's."""
    from metvae_cli.build import load_run
    from metvae_cli.commands.sample_choice import chosen
    from metvae_cli.commands.sample_request import Request
    from metvae_cli.commands.sample_run import sample
    from metvae_cli.plain_config import plain

    folder = output_folder()
    refuse_directory("sample", folder)
    try:
        request = call(Request, plain(config), "")
        run = load_run(Path(str(request.run)), request.checkpoint, request.device, named_plugins())
        names = chosen(run, request)
    except ConfigError:
        if not is_sweep():
            discard_run(folder, "sample")
        raise
    store_words(config, folder)
    sample(run, request, names, folder)
