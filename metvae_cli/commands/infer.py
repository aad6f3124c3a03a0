"""`metvae infer`: read the command line, then approximate a density, once, in a sweep, or several ways side by side.

What a run does is in `infer_run.py`; it is imported late, so that help and misspelt words answer without torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from metvae_cli.commands.hydra_entry import (
    composed,
    named_plugins,
    output_folder,
    plugins_in,
    typed_values,
    words_to_repeat,
)
from metvae_cli.commands.stored_run import changed, is_cut_off, log_to, refuse_running
from metvae_cli.commands.stored_words import store_words
from metvae_cli.commands.train import built, refuse_used_directory, start_or_resume
from metvae_cli.errors import ConfigError
from metvae_cli.paths import config_dir
from metvae_cli.schema import did_you_mean

if TYPE_CHECKING:
    from metvae_cli.build_inference import InferenceRun
    from metvae_cli.commands.infer_run import Method

_LOG = "infer.log"
_CHANGEABLE = ("trainer.", "evaluation.")


def main(argv: list[str]) -> int:
    """Approximate; returns the exit status."""
    return start_or_resume("infer", argv, task, resume)


def task(config: DictConfig) -> float:
    """One job of Hydra's; returns what a sweeper may maximise: the bound, or of a plain chain its effective size per
    evaluation.

    Raises:
        ConfigError: cannot be done. The directory made for it is removed again; a job of a sweep leaves word in its own
        RunError: failed; the reason is in the run's log and status
    """
    from metvae_cli.commands.infer_run import infer, infer_side_by_side
    from metvae_cli.plain_config import plain

    folder = output_folder()
    if config.get("methods"):
        methods = built(folder, _LOG, lambda: _several(config, folder))
        store_words(config, folder)
        return infer_side_by_side(methods, plain(config), folder)
    run, settings = built(folder, _LOG, lambda: _build(config))
    store_words(config, folder)
    return infer(run, settings, folder, words=words_to_repeat()).score


def resume(folder: Path, overrides: Sequence[str]) -> float:
    """Go on with the run in `folder`; limits and intervals, and what is measured at the end, may be changed."""
    from metvae_cli.build_inference import build_inference
    from metvae_cli.commands.infer_run import infer, refuse_other_checkpoint
    from metvae_cli.stored_config import stored_config
    from metvae_cli.tracking.run_directory import run_id
    from metvae_cli.training.checkpoint import load_newest

    for word in overrides:
        if word.startswith("-") or not word.startswith((*_CHANGEABLE, "plugins=", "target.path=")):
            raise ConfigError(
                f"{word}: cannot be changed on a resume; only trainer.* and evaluation.* keys can, and target.path of "
                "a file that was moved"
            )
    config = stored_config(folder, "resume")
    if not isinstance(config.get("objective"), dict) or "target" not in config:
        raise ConfigError(f"resume={folder}: is no run of `metvae infer`; say metvae train resume={folder}")
    if config.get("methods"):
        raise ConfigError(f"resume={folder}: holds several runs; name one of them, like {config['methods'][0]} in it")
    if config["objective"].get("_target_") is None:
        raise ConfigError(f"resume={folder}: was a plain chain, of which there are no checkpoints; start a new one")
    config = changed(config, [word for word in overrides if not word.startswith("plugins=")])
    refuse_running(folder)
    content, notes = (None, []) if is_cut_off(folder) else load_newest(folder / "checkpoints", run_id(folder))
    run = build_inference(config, plugins_in(overrides), typed_values("target.path", overrides))
    run.notes.extend(notes)
    if content is not None:
        refuse_other_checkpoint(run, folder, content)
    log_to(folder, _LOG)
    return infer(run, config, folder, content, words=overrides).score


def _build(config: DictConfig) -> tuple["InferenceRun", dict[str, Any]]:
    """What a configuration describes, and the configuration as plain containers."""
    from metvae_cli.build_inference import build_inference
    from metvae_cli.plain_config import plain

    settings = plain(config)
    return build_inference(settings, named_plugins(), typed_values("target.path")), settings


def _composed(name: str, words: Sequence[str]) -> DictConfig:
    """The configuration of one method. Raises ConfigError, of its own key where there is no such experiment."""
    known = sorted(path.stem for path in (config_dir() / "experiment").glob("infer_*.yaml"))
    if name not in known and not any(word.startswith("plugins=") for word in words):
        near = did_you_mean(name, known) or "; `metvae configs list experiment` shows them"
        raise ConfigError(f"methods=[{name}]: no such experiment of `metvae infer`{near}")
    return composed("infer", [*words, f"experiment={name}"])


def _several(config: DictConfig, folder: Path) -> dict[str, "Method"]:
    """The methods of a configuration: of each its experiment, and on top of it what the command line says.

    Each is built once here, so that what cannot be done is refused before the first one begins.
    """
    from metvae_cli.commands.infer_run import Method

    if not isinstance(config["methods"], ListConfig):
        raise ConfigError(f"methods={config['methods']}: expected a list, like [infer_walk,infer_metflow]")
    typed = HydraConfig.get().overrides.task
    words = [word for word in typed if word.partition("=")[0].lstrip("+") not in ("methods", "experiment")]
    found: dict[str, Method] = {}
    for name in config["methods"]:
        if name in found:
            raise ConfigError(f"methods=[{','.join(config['methods'])}]: {name} stands there twice")
        method = _composed(name, words)
        refuse_used_directory(folder / name)
        if method.get("methods"):
            raise ConfigError(f"methods=[{name}]: is a list of methods itself; name its members")
        _, settings = _build(method)
        first = next(iter(found), name)
        found[name] = Method(settings, lambda method=method: _build(method)[0])
        if settings["target"] != found[first].config["target"]:
            raise ConfigError(
                f"methods=[{','.join(config['methods'])}]: {first} and {name} have different targets, and one picture "
                "shows one; add target=NAME for all of them"
            )
    return found
