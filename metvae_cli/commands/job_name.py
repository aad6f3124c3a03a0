"""The directory of a job of a sweep: its number and the overrides in which it differs from the other jobs.

TensorBoard shows it as the name of the run. Importing this file makes `${job_name:...}` known to configurations.
"""

import re
from collections.abc import Sequence
from typing import cast

from omegaconf import ListConfig, OmegaConf

_LONGEST = 100  # file systems take 255 bytes; what is beyond this nobody reads in a legend
_LONG_NUMBER = 10  # characters


def job_name(number: int, words: Sequence[str], same: Sequence[str]) -> str:
    """The name of a directory, like `03_sampler=hmc,seed=1`, in letters that need no quotes anywhere.

    Args:
        number: of the job; it makes the name unique, whatever is cut off or replaced
        words: the job's overrides
        same: the keys whose overrides are the same for all jobs
    """
    varied = []
    for word in words:
        key, _, value = word.partition("=")
        key = key.lstrip("+~")
        if key.partition("@")[0] not in same:
            varied.append(f"{_plain(key)}={_plain(_short(value))}")
    name = f"{number:02d}_{','.join(varied)}" if varied else f"{number:02d}"
    return name[:_LONGEST].rstrip(",.=_-")


def _plain(text: str) -> str:
    """Brackets and quotes go, and what is neither a letter, a digit nor one of `.+_-` becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", re.sub(r"""['"\[\](){}\\$]""", "", text))


def _short(value: str) -> str:
    """A number with more digits than anybody types, which a search has drawn, with four of them."""
    is_long = len(value) >= _LONG_NUMBER and re.fullmatch(r"-?\d+(\.\d*)?(e[+-]?\d+)?", value)
    return f"{float(value):.4g}" if is_long and not value.lstrip("-").isdigit() else value


def _from_config(number: int, words: ListConfig, same: ListConfig) -> str:
    # Unresolved: a word may hold an interpolation, which stands in its name as it was typed.
    plain = cast(list[str], OmegaConf.to_container(words, resolve=False))
    return job_name(number, plain, list(same))


# On import, and not in a function that the program calls: a launcher's process imports what a job is made of and then
# asks at once for the job's directory.
OmegaConf.register_new_resolver("job_name", _from_config, replace=True)
