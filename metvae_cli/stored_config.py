"""What a run was made of, as its directory tells: its configuration, and which data it had."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from metvae_cli.errors import ConfigError
from metvae_cli.plain_config import plain
from metvae_cli.plain_yaml import plain_yaml
from metvae_cli.tracking.run_directory import read_manifest


def stored_config(folder: Path, key: str = "run") -> dict[str, Any]:
    """The configuration that the run in `folder` was started with. key: what the user set to `folder`."""
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{key}={folder}: no run is there (.hydra/config.yaml is missing); {_run_below(folder)}")
    try:
        loaded = cast(DictConfig, OmegaConf.load(plain_yaml(path)))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{key}={folder}: {path} cannot be read ({reason}); mend it, or name another run") from None
    config = plain(loaded)
    _find_from_where_it_ran(config, read_manifest(folder).get("directory"))
    return config


def _run_below(folder: Path) -> str:
    """What to name in place of a folder that is no run."""
    found = [place.parent for level in ("*", "*/*") for place in folder.glob(f"{level}/checkpoints")]
    latest = max(found, key=lambda place: place.name, default=None)  # names start with the time
    return f"the latest below it is {latest}" if latest else "name the directory of one, like outputs/train/RUN"


def _find_from_where_it_ran(config: Mapping[str, Any], directory: object) -> None:
    """Relative places of data are those of the directory where the run was started."""
    dataset = config.get("dataset")
    for key in ("path", "root"):
        place = dataset.get(key) if isinstance(dataset, dict) else None
        if isinstance(place, str) and isinstance(directory, str) and not Path(place).expanduser().exists():
            there = Path(directory, place)
            if there.exists():
                cast(dict[str, Any], dataset)[key] = str(there)


def data_of(folder: Path) -> dict[str, Any]:
    """What the manifest of a run says of its data: fingerprint and event_shape; empty if it says nothing."""
    found = read_manifest(folder).get("data")
    return found if isinstance(found, dict) and {"fingerprint", "event_shape"} <= found.keys() else {}
