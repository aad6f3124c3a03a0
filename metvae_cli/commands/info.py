"""`metvae info`: what a bug report needs."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metvae_cli import __version__
from metvae_cli.commands.one_line_parser import OneLineParser
from metvae_cli.errors import ConfigError
from metvae_cli.paths import config_dir
from metvae_cli.tracking.run_directory import git_state

PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "tensorboard", "scikit-learn", "zuko")

Facts = dict[str, str | int | bool | list[str] | None]


def main(argv: list[str]) -> int:
    """Run `metvae info [--json]`; return the exit status."""
    parser = OneLineParser(
        prog="metvae info", description="Print versions, devices and data found: what a bug report needs."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    facts = collect()
    print(json.dumps(facts, indent=2) if arguments.json else as_text(facts))
    return 0


def collect() -> Facts:
    """Return the facts in the order in which they are printed."""
    facts: Facts = {"metvae": __version__, "python": platform.python_version()}
    facts |= {package: _version(package) for package in PACKAGES}
    facts |= {"platform": platform.platform(), "cpus": os.cpu_count()}
    facts |= _torch_facts()
    facts |= {
        "configs": _config_dir(),
        "digits": _has_digits(),
        "mnist": _mnist_folder(Path("data")),
        "commit": _commit(),
    }
    return facts


def as_text(facts: Facts) -> str:
    """Return one aligned line for each fact; what is missing reads `none`."""
    width = max(len(name) for name in facts)
    return "\n".join(f"{name:<{width}}  {_words(value)}" for name, value in facts.items())


def _words(value: object) -> str:
    """Return a value as a person would write it."""
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _version(package: str) -> str | None:
    """Return the installed version of a package without importing it; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch_facts() -> Facts:
    """Return what only torch can tell; a torch that does not import is reported, not raised."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of the wrong build
        return {"torch threads": None, "devices": [f"torch does not import: {error}"]}
    devices = ["cpu"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"torch threads": torch.get_num_threads(), "devices": devices}


def _config_dir() -> str | None:
    """Return where the shipped configs are; None where the installation lacks them."""
    try:
        return str(config_dir())
    except ConfigError:
        return None


def _has_digits() -> bool:
    """Tell whether scikit-learn's handwritten digits, which need no download, are there."""
    try:
        from sklearn.datasets import load_digits

        images, _ = load_digits(return_X_y=True)
        return len(images) > 0
    except (ImportError, OSError):
        return False


def _mnist_folder(data: Path) -> str | None:
    """Return the folder with MNIST's files below `data`; None where there is none."""
    for folder in (data / "MNIST" / "raw", data / "MNIST"):
        if any(folder.glob("train-images*")):
            return str(folder.resolve())
    return None


def _commit() -> str | None:
    """Return the commit of the checkout, with a mark where files were changed since; None outside of one."""
    state = git_state()
    if state is None:
        return None
    return f"{state['commit']} (with local changes)" if state["dirty"] else state["commit"]
