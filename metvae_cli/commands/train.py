"""`metvae train`: read the command line, then train, once, in a sweep, or on from where a run stopped.

What a run does is in `train_run.py`; it is imported late, so that help and misspelt words answer without torch.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

from metvae_cli.commands.hydra_entry import (
    composed_alone,
    is_sweep,
    named_plugins,
    options_first,
    output_folder,
    override_value,
    plugins_in,
    words_to_repeat,
)
from metvae_cli.commands.own_directory import refuse_no_directory
from metvae_cli.commands.run_or_sweep import run_or_sweep
from metvae_cli.commands.stored_run import changed, is_cut_off, log_to, refuse_running
from metvae_cli.commands.stored_words import store_words
from metvae_cli.errors import ConfigError, Interrupted, RunError
from metvae_cli.paths import discard_run
from metvae_cli.tracking.run_directory import read_status, run_id, write_status
from metvae_cli.training.ranks import is_assistant, rank_and_size

T = TypeVar("T")

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Train; returns the exit status."""
    if is_assistant():
        return _assist(argv)
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


def _assist(argv: Sequence[str]) -> int:
    """Do the share of a process that torchrun or Slurm started beside the first one, which says all there is to say."""
    from metvae_cli.commands.several_processes import assist
    from metvae_cli.plain_config import plain
    from metvae_cli.stored_config import stored_config

    try:
        words = options_first(argv, "train")
        if any(word.startswith(("--cfg", "-c", "--help", "-h", "--hydra-help", "--info", "-i")) for word in words):
            return 0
        folder = override_value(words, "resume")
        plugins = plugins_in([word for word in words if not word.startswith("-")])
        if folder not in (None, "", "null"):
            changes = [word for word in words if not word.startswith(("resume=", "plugins="))]
            config = changed(stored_config(Path(folder), "resume"), changes)
        else:
            config = plain(composed_alone("train", words))
        assist(config, plugins)
    except ConfigError:
        return 2
    except Interrupted as interrupted:
        return 128 + interrupted.signum
    return 0


def task(config: DictConfig) -> float:
    """One job of Hydra's; returns the best validation bound, which a sweeper may maximise.

    Raises:
        ConfigError: cannot be done. The directory made for it is removed again; a job of a sweep leaves word in its own
        RunError: failed; the reason is in the run's log and status
    """
    from metvae_cli.plain_config import plain

    folder = output_folder()
    start = built(folder, "train.log", lambda: _starter(plain(config), named_plugins(), folder, resumes=False))
    store_words(config, folder)
    return start(words_to_repeat())


def _starter(
    config: dict[str, Any], plugins: Sequence[str], folder: Path, *, resumes: bool
) -> Callable[[Sequence[str]], float]:
    """What trains, in this process or in several, once it is known that it can; given the words that count for it.

    resumes: whether to go on from the run's checkpoint

    Raises:
        ConfigError: it cannot
    """
    from metvae_cli.build import build_experiment, check_config
    from metvae_cli.commands.train_run import make_trainer, refuse_other_configuration, refuse_other_data, train
    from metvae_cli.tracking.tracker import Silence
    from metvae_cli.training.checkpoint import load_newest
    from metvae_cli.training.fabric import check_processes
    from metvae_cli.training.interruption import Interruption

    _, settings = check_config(config, plugins)
    check_processes(settings)
    if settings.replicas > 1:
        from metvae_cli.commands.train_replicas import prepared

        return prepared(config, plugins, folder, resumes=resumes)
    content, notes = load_newest(folder / "checkpoints", run_id(folder)) if resumes else (None, [])
    several = settings.devices > 1 and rank_and_size()[1] == 1
    alone = {**config, "trainer": {**config["trainer"], "devices": 1, "device": "cpu"}}
    experiment = build_experiment(alone if several else config, plugins)
    experiment.notes.extend(notes)
    if content is not None:
        refuse_other_data(folder, experiment.learner.dataset)
        refuse_other_configuration(folder, make_trainer(experiment, folder, Silence(), Interruption()), content)
    if not several:
        return lambda words: train(experiment, config, folder, content, words)

    def start(words: Sequence[str]) -> float:
        from metvae_cli.commands.several_processes import launch

        return launch(folder, words, settings, resumes=resumes)

    return start


def built(folder: Path, log_name: str, build: Callable[[], T]) -> T:
    """What `build` makes for a job of Hydra's, with word of its failure where that belongs.

    Raises:
        ConfigError: cannot be done. The directory made for it is removed again; a job of a sweep leaves word in its own
        RunError: a defect; its story is in the run's own log
    """
    refuse_used_directory(folder)
    try:
        return build()
    except ConfigError:
        if not is_sweep():
            discard_run(folder, Path(log_name).stem)
        raise
    except Exception as error:  # a defect, ours or of a class of the user's: its story is told in the run's own log
        from metvae_cli.commands.failure import told

        log.exception("the run failed")
        reason = told(error, Path(log_name).stem, folder) or f"{type(error).__name__}: {error}"
        write_status(folder, "failed", reason)
        raise RunError(f"{reason} (the whole story: {folder / log_name})") from error


# Where data lie may change between a run and its resume; what they are may not.
_MOVED = ("dataset.path=", "dataset.root=")


def resume(folder: Path, overrides: Sequence[str]) -> float:
    """Go on with the run in `folder`; only limits and intervals of the trainer may be changed."""
    from metvae_cli.stored_config import stored_config

    for word in overrides:
        if word.startswith("-") or not word.startswith(("trainer.", "plugins=", *_MOVED)):
            raise ConfigError(
                f"{word}: cannot be changed on a resume; only trainer.* keys can, and dataset.path or dataset.root "
                "of data that were moved"
            )
        if word.startswith("trainer.replicas="):
            raise ConfigError(
                f"{word}: the number of seeds cannot be changed on a resume; start the others as new runs"
            )
    changes = [word for word in overrides if not word.startswith("plugins=")]
    config = changed(stored_config(folder, "resume"), changes)
    refuse_running(folder)
    start = _starter(config, plugins_in(overrides), folder, resumes=not is_cut_off(folder))
    log_to(folder, "train.log")
    return start(overrides)


def refuse_used_directory(folder: Path) -> None:
    """A run's directory stays as it is, also where an interpolation or a file of the user's names it again."""
    status = read_status(folder).get("status")
    if status:
        raise ConfigError(
            f"hydra.run.dir={folder}: holds a run already ({status}); choose another directory, or resume={folder}"
        )


def _refuse_named_directory(argv: Sequence[str]) -> None:
    """The same before anything is composed, for a directory that the command line names outright."""
    value = override_value(argv, "hydra.run.dir")
    refuse_no_directory(value)
    if value and "${" not in value:
        refuse_used_directory(Path(value))
