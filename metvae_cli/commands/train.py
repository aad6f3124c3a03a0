"""`metvae train`: read the command line, then train, once, in a sweep, or on from where a run stopped.

What a run does is in `train_run.py`; it is imported late, so that help and misspelt words answer without torch.
"""

import logging
import logging.config
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from metvae_cli.commands.hydra_entry import (
    is_sweep,
    named_plugins,
    output_folder,
    override_value,
    plugins_in,
    store_words,
)
from metvae_cli.commands.sweep import run_or_sweep
from metvae_cli.errors import ConfigError, Interrupted, RunError
from metvae_cli.paths import config_dir, discard_run
from metvae_cli.schema import did_you_mean
from metvae_cli.tracking.run_directory import read_status, write_status

T = TypeVar("T")

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Train; returns the exit status."""
    return start_or_resume("train", argv, task, resume)


def start_or_resume(
    command: str, argv: list[str], task: Callable[[DictConfig], Any], resume: Callable[[Path, Sequence[str]], Any]
) -> int:
    """Run a command that trains, new or on from where `resume=DIR` stopped; returns the exit status."""
    try:
        folder = override_value(argv, "resume")
        if folder == "":
            raise ConfigError(f"resume=: names no directory; say resume=outputs/{command}/RUN, or leave it out")
        if folder is not None and folder != "null":
            resume(Path(folder), [word for word in argv if not word.startswith("resume=")])
        else:
            _refuse_named_directory(argv)
            return run_or_sweep(command, argv, task, resume)
    except Interrupted as interrupted:
        print(f"metvae: stopped by {interrupted}; what to do next is said above", file=sys.stderr)
        return 128 + interrupted.signum
    return 0


def task(config: DictConfig) -> float:
    """One job of Hydra's; returns the best validation bound, which a sweeper may maximise.

    Raises:
        ConfigError: cannot be done. The directory made for it is removed again; a job of a sweep leaves word in its own
        RunError: failed; the reason is in the run's log and status
    """
    from metvae_cli.build import build_experiment, plain
    from metvae_cli.commands.train_run import train

    folder = output_folder()
    settings, experiment = built(
        folder, "train.log", lambda: (plain(config), build_experiment(plain(config), named_plugins()))
    )
    store_words(config, folder)
    return train(experiment, settings, folder)


def built(folder: Path, log_name: str, build: Callable[[], T]) -> T:
    """What `build` makes for a job of Hydra's, with word of its failure where that belongs.

    Raises:
        ConfigError: cannot be done. The directory made for it is removed again; a job of a sweep leaves word in its own
        RunError: a defect; its story is in the run's own log
    """
    _refuse_used_directory(folder)
    try:
        return build()
    except ConfigError:
        if not is_sweep():
            discard_run(folder)
        raise
    except Exception as error:  # a defect, ours or of a class of the user's: its story is told in the run's own log
        log.exception("the run failed")
        reason = f"{type(error).__name__}: {error}"
        write_status(folder, "failed", reason)
        raise RunError(f"{reason} (the whole story: {folder / log_name})") from error


# Where data lie may change between a run and its resume; what they are may not.
_MOVED = ("dataset.path=", "dataset.root=")


def resume(folder: Path, overrides: Sequence[str]) -> float:
    """Go on with the run in `folder`; only limits and intervals of the trainer may be changed."""
    from metvae_cli.build import build_experiment, data_of, stored_config
    from metvae_cli.commands.train_run import train
    from metvae_cli.training.checkpoint import load_checkpoint

    for word in overrides:
        if word.startswith("-") or not word.startswith(("trainer.", "plugins=", *_MOVED)):
            raise ConfigError(
                f"{word}: cannot be changed on a resume; only trainer.* keys can, and dataset.path or dataset.root "
                "of data that were moved"
            )
    changes = [word for word in overrides if not word.startswith("plugins=")]
    config = changed(stored_config(folder, "resume"), changes)
    content = load_checkpoint(folder / "checkpoints" / "last.pt")
    experiment = build_experiment(config, plugins_in(overrides))
    if (known := data_of(folder)) and known["fingerprint"] != experiment.learner.dataset.fingerprint():
        raise ConfigError(
            f"resume={folder}: the data are not those that the run was started with; put them back, or start a new run"
        )
    log_to(folder, "train.log")
    return train(experiment, config, folder, content)


def changed(config: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """The stored configuration with other values of keys that it has. changes: words like trainer.max_epochs=3."""
    result = dict(config)
    for group, given in cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist(changes))).items():
        for key in given:
            if key not in config[group]:
                known = [f"{group}.{name}" for name in config[group]]
                raise ConfigError(f"{group}.{key}: unknown key{did_you_mean(f'{group}.{key}', known)}")
        result[group] = {**config[group], **given}
        if "max_epochs" in given and config["optimizer"].get("schedule") == "cosine":
            raise ConfigError(
                "trainer.max_epochs: is the length of the cosine schedule and cannot be changed on a resume"
            )
    return result


def log_to(folder: Path, name: str) -> None:
    """The logging that Hydra sets up for a new run."""
    settings = OmegaConf.load(config_dir() / "hydra" / "job_logging" / "metvae.yaml")
    OmegaConf.update(settings, "handlers.file.filename", str(folder / name))
    logging.config.dictConfig(cast(dict[str, Any], OmegaConf.to_container(settings)))


def _refuse_used_directory(folder: Path) -> None:
    """A run's directory stays as it is, also where an interpolation or a file of the user's names it again."""
    status = read_status(folder).get("status")
    if status:
        raise ConfigError(
            f"hydra.run.dir={folder}: holds a run already ({status}); choose another directory, or resume={folder}"
        )


def _refuse_named_directory(argv: Sequence[str]) -> None:
    """The same before anything is composed, for a directory that the command line names outright."""
    value = override_value(argv, "hydra.run.dir")
    if value and "${" not in value:
        _refuse_used_directory(Path(value))
