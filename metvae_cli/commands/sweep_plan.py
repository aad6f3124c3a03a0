"""What a sweep is going to do: its words, its directory and how its jobs are spread, all known before the first job."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from metvae_cli.commands.hydra_entry import SWEEPS, composed_for_sweep, override_value
from metvae_cli.commands.sweep_seeds import refuse_shared_seeds
from metvae_cli.commands.sweep_space import SearchPlan, plan_search
from metvae_cli.errors import ConfigError
from metvae_cli.paths import STUDY_FILE
from metvae_cli.tracking.run_directory import SWEEP_RECORD, now, write_json

BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"
# About where jobs run, and not about what they are: may be others when a sweep goes on.
_PLACES = ("hydra/launcher", "hydra.launcher", "hydra.sweeper.max_batch_size", "hydra.mode", "hydra.verbose")
_WIDTH = ("hydra.sweeper.n_trials",)
_HARMLESS = tuple(
    f"hydra.sweeper.{key}"
    for key in ("n_trials", "sampler", "seed", "n_startup_trials", "pruner", "prune_after", "study_name")
)
_OWN = ("sweep.resume", "hydra.sweep.dir")
_SAME = "hydra.job.config.override_dirname.exclude_keys"


class SweepPlan(NamedTuple):
    """A sweep.

    Attributes:
        command: train, infer, ...
        folder: its directory
        resumed: whether that is there already
        options: words for Hydra itself, like --config-dir
        words: what the jobs are made of
        places: where they run
        jobs: how many; None where the sweeper decides that as it goes
        processes: how many run side by side in processes of their own; 0 is one after another in this one
        shares_terminal: whether those processes write to this terminal
        threads: CPU threads for each process; None is as many as it likes
        depth: of a job's directory below that of the sweep
        same: keys whose overrides are the same for all jobs
        search: what chooses the values of the jobs; None where the words name them all
        batch: how many trials a search runs before it looks at how they ended
    """

    command: str
    folder: Path
    resumed: bool
    options: list[str]
    words: list[str]
    places: list[str]
    jobs: int | None
    processes: int
    shares_terminal: bool
    threads: int | None
    depth: int
    same: list[str]
    search: SearchPlan | None
    batch: int

    def argv(self) -> list[str]:
        """The words for Hydra, with the directory and what names the jobs settled for all of them."""
        settled = [f"hydra.sweep.dir={quoted(str(self.folder))}"]
        if self.search is not None:
            settled.append(f"hydra.sweeper.storage={quoted(self.storage())}")
        if override_value(self.words, _SAME) is None:
            settled.append(f"{_SAME}=[{','.join(repr(key) for key in self.same)}]")
        if self.shares_terminal and self.jobs:
            settled.append(f"hydra.launcher.n_jobs={self.processes or 1}")
        return [*self.options, "-m", *self.words, *self.places, *settled]

    def to_go_on(self) -> str:
        """What to type to go on with it."""
        places = " ".join(shlex.quote(word) for word in self.places)
        typed = [*self.options, *self.words] if _by_hand([*self.options, *self.words]) else []
        words = " ".join([*(shlex.quote(word) for word in typed), *([places] if places else [])])
        return f"metvae {self.command} -m {words}{' ' * bool(words)}{shlex.quote(f'sweep.resume={self.folder}')}"

    def study_file(self) -> Path:
        """Where the study of a search is, unless the user has named another place."""
        return self.folder.resolve() / STUDY_FILE

    def storage(self) -> str:
        """The address of the study of a search."""
        own = self.search.settings.storage if self.search else None
        return own or f"sqlite:///{self.study_file()}".replace("%", "%25").replace("?", "%3F")

    def record(self) -> None:
        """Write down what the jobs are made of; a search may have been made wider since it was begun."""
        path, words = self.folder / SWEEP_RECORD, [*self.options, *self.words]
        if not self.resumed:
            write_json(path, {"command": self.command, "words": words, "directory": str(Path.cwd()), "time": now()})
        elif (known := json.loads(path.read_text()))["words"] != words:
            write_json(path, known | {"words": words})

    def job_folders(self) -> list[Path]:
        """The directories in which a job has said how it stands, by their number."""
        below = "/".join(["*"] * self.depth)
        found = [path.parent for path in self.folder.glob(f"{below}/status.json")]
        return sorted(found, key=lambda path: [part.zfill(9) for part in re.split(r"(\d+)", str(path))])


def plan_sweep(command: str, argv: Sequence[str]) -> SweepPlan:
    """The sweep that the words ask for.

    Raises:
        ConfigError: it cannot be composed, it was started with other words, or its directory is taken
    """
    typed = get_args_parser().parse_args(list(argv)).overrides
    options = _without([word for word in argv if word not in SWEEPS], typed)
    words = [word for word in typed if not _is_about(word, (*_PLACES, *_OWN))]
    places = [word for word in typed if _is_about(word, _PLACES) and not _is_about(word, ("hydra.mode",))]
    named = [word for word in typed if _is_about(word, ("hydra.sweep.dir",))]
    resumed = resumed_sweep(command, typed)
    if resumed is not None:
        options, words = _stored_words(command, resumed, options, words)
        named = []
    overrides, config = composed_for_sweep(command, options, [*words, *places, *named])
    folder = resumed or Path(config.hydra.sweep.dir)
    if resumed is None and ((folder / SWEEP_RECORD).exists() or any(folder.glob("*/status.json"))):
        raise ConfigError(
            f"hydra.sweep.dir={folder}: holds a run already; choose another directory, or sweep.resume={folder}"
        )
    search = plan_search(command, overrides, config.hydra.sweeper)
    if search and search.settings.pruner != "none":
        _refuse_to_prune(search.settings.pruner, config.get("trainer", {}))
    listed = None if search else _listed_jobs(overrides, config)
    if listed is not None and not listed:
        raise ConfigError(f"-m {' '.join(words)}: makes no job; give each key a value at least, like seed=range(0,3)")
    if listed is not None and resumed is None and command == "train":
        refuse_shared_seeds(listed, config)
    jobs = search.settings.n_trials if search else None if listed is None else len(listed)
    processes, threads = _spread(config, jobs, search is not None)
    same = [str(override.key_or_group) for override in overrides if not override.is_sweep_override()]
    return SweepPlan(
        command=command,
        folder=folder,
        resumed=resumed is not None,
        options=options,
        words=words,
        places=places,
        jobs=jobs,
        processes=processes,
        shares_terminal=_launcher(config) == "JoblibLauncher",
        threads=threads,
        depth=1 + str(config.hydra.sweep._get_node("subdir")).count("/"),
        same=[key for key in same if not key.startswith("hydra")],
        search=search,
        batch=search.settings.max_batch_size or processes or 1 if search else 0,
    )


def _refuse_to_prune(pruner: str, trainer: Mapping[str, Any]) -> None:
    """Raise ConfigError where a run is not one that could be stopped by itself."""
    for key, what in (("devices", "runs of several processes"), ("replicas", "one of several seeds side by side")):
        count = trainer.get(key, 1)
        if isinstance(count, int) and count > 1:
            raise ConfigError(f"hydra.sweeper.pruner={pruner}: cannot stop {what}; set it to none, or trainer.{key}=1")


def resumed_sweep(command: str, words: Sequence[str]) -> Path | None:
    """The directory that `sweep.resume` names. Raises ConfigError where it is empty."""
    value = override_value(words, "sweep.resume")
    if value == "":
        raise ConfigError(f"sweep.resume=: names no directory; say sweep.resume=outputs/{command}/SWEEP")
    return None if value in (None, "null") else Path(value)


def _stored_words(command: str, folder: Path, options: list[str], words: list[str]) -> tuple[list[str], list[str]]:
    """Options and words of the sweep in a folder, if those typed are none or the same. Raises ConfigError."""
    try:
        record: dict[str, Any] = json.loads((folder / SWEEP_RECORD).read_text())
        known = [str(word) for word in record["words"]]
    except (OSError, ValueError, KeyError, TypeError):
        single = (folder / "status.json").is_file()
        one = f"name the directory of one, like outputs/{command}/SWEEP"
        remedy = f"go on with a single run by resume={folder}" if single else one
        raise ConfigError(f"sweep.resume={folder}: no sweep is there ({SWEEP_RECORD} is missing); {remedy}") from None
    again = f"metvae {command} -m {shlex.join(known)} {shlex.quote(f'sweep.resume={folder}')}"
    if record.get("command") != command:
        raise ConfigError(f"sweep.resume={folder}: is a sweep of `metvae {record.get('command')}`")
    if not options and not _but_for_width(words):
        if by_hand := _by_hand(known):
            raise ConfigError(
                f"sweep.resume={folder}: {by_hand[0]} counts on the command line only, and not in a file; say {again}"
            )
        return [], [*_but_for_width(known), *(words or _width(known))]
    if _but_for_width([*options, *words]) != _but_for_width(known):
        raise ConfigError(f"sweep.resume={folder}: was started with other words; say {again}, or start a new sweep")
    return options, words if _width(words) else [*words, *_width(known)]


def _width(words: Sequence[str]) -> list[str]:
    """How many trials a search is to have, which may be more when it goes on."""
    return [word for word in words if _is_about(word, _WIDTH)]


def _but_for_width(words: Sequence[str]) -> list[str]:
    return [word for word in words if not _is_about(word, _WIDTH)]


def _by_hand(words: Sequence[str]) -> list[str]:
    """Those that may make code run, which a file in a directory may not."""
    plain = re.compile(r"[A-Za-z][\w./]*=")
    code = ("plugins", "target.path", "hydra")
    doubtful = [word for word in words if not plain.match(word) or word.startswith(code)]
    return [word for word in doubtful if word != "hydra/sweeper=optuna" and not _is_about(word, _HARMLESS)]


def _listed_jobs(overrides: Sequence[Override], config: DictConfig) -> Sequence[Sequence[str]] | None:
    """The words of each job, where they are known before the first."""
    if config.hydra.sweeper.get("_target_") != BASIC_SWEEPER or config.hydra.sweeper.get("params"):
        return None
    (jobs,) = BasicSweeper.split_arguments(list(overrides), None)
    return jobs


def _launcher(config: DictConfig) -> str:
    return str(config.hydra.launcher.get("_target_", "")).rpartition(".")[2]


def _spread(config: DictConfig, jobs: int | None, searches: bool) -> tuple[int, int | None]:
    """How many processes of their own jobs get, and CPU threads for each. searches: not all jobs at once"""
    cores, launcher = _cores(), _launcher(config)
    if launcher == "JoblibLauncher":
        asked = config.hydra.launcher.n_jobs
        count = max(1, cores + 1 + asked if asked < 0 else asked)
        count = min(count, jobs or count)
        return (count, max(1, cores // count)) if count > 1 else (0, None)  # joblib starts no process for one
    if launcher == "LocalLauncher":
        together = config.hydra.sweeper.get("max_batch_size") or (1 if searches else jobs) or 1
        count = min(together, jobs or together)
        return count, max(1, cores // count)
    if launcher == "SlurmLauncher":
        together = config.hydra.launcher.get("array_parallelism") if searches else jobs
        return min(together or 1, jobs or 1), config.hydra.launcher.get("cpus_per_task")
    return 0, None


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quoted(value: str) -> str:
    """A value that Hydra takes as it stands."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _is_about(word: str, keys: Sequence[str]) -> bool:
    name = word.partition("=")[0].lstrip("+~")
    return any(name == key or name.startswith(f"{key}.") for key in keys)


def _without(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words that are left when each of the others is taken out once."""
    left = list(words)
    for word in others:
        left.remove(word)
    return left
