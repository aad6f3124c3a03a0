"""Where things lie on disk."""

import os
from pathlib import Path

from metvae_cli.errors import ConfigError

MADE = "METVAE_MADE"  # in the environment: a directory that the user named and that was not there at the start
STUDY_FILE = "study.db"  # of a search, in the directory of its sweep
_OF_A_SWEEP = ("multirun.yaml", "sweep.json", STUDY_FILE)


def config_dir() -> Path:
    """Return the folder of the shipped configs: inside the package in a wheel, beside it in a checkout.

    Raises:
        ConfigError: there is no such folder, because the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    candidates = (package / "configs", package.parent / "configs")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise ConfigError(f"metvae's configs are missing (looked for {looked}); install metvae again")


def discard_run(folder: Path, command: str, *, has_words: bool = False) -> None:
    """Remove the directory of a run that was refused before it began, and the empty folders made for it.

    Of a directory that the user named only what is surely this start's goes: what was there before stays.

    Args:
        folder: the directory
        command: whose log Hydra has opened there
        has_words: whether this start has written its words there
    """
    stamp, made = os.environ.get("METVAE_STAMP"), os.environ.get(MADE)
    new = bool(stamp and stamp in str(folder)) or bool(made and Path(made) == folder.resolve())
    log = folder / f"{command}.log"
    if log.is_file() and (new or has_words or not log.stat().st_size):
        log.unlink()
    if has_words:
        for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
            (folder / ".hydra" / name).unlink(missing_ok=True)
    _remove_empty(folder)


def discard_sweep(folder: Path) -> None:
    """Remove the directory of a sweep that was refused before its first job; it stays if a job has been there."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= set(_OF_A_SWEEP):
        for name in _OF_A_SWEEP:
            (folder / name).unlink(missing_ok=True)
        _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Remove the folder and those above it, up to the working directory, that hold nothing."""
    here = Path.cwd().resolve()
    for empty in (folder / ".hydra", folder, *folder.resolve().parents):
        if empty.resolve() == here or (empty not in (folder / ".hydra", folder) and here not in empty.parents):
            break
        try:
            empty.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            break
