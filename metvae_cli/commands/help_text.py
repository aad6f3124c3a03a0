"""What `metvae <command> --help` prints where nothing is said to Hydra itself, in half of Hydra's time.

Hydra copies all that it knows of configurations each time that it looks at a group of them, which it does a hundred
times. The template and the words are the same.
"""

from collections import defaultdict
from collections.abc import Sequence
from string import Template

from omegaconf import OmegaConf

from metvae_cli.commands.configs import find_choices
from metvae_cli.commands.hydra_entry import composed_for_sweep
from metvae_cli.paths import config_dir


def is_plain(words: Sequence[str]) -> bool:
    """Whether help is asked for, and the other words are about the command's own configuration."""
    others = [word for word in words if word not in ("--help", "-h")]
    return len(others) < len(words) and not any(word.lstrip("+~").startswith(("-", "hydra")) for word in others)


def help_text(command: str, words: Sequence[str]) -> str:
    """The help of a command, with the configuration that the words make. Raises ConfigError where they make none."""
    _, config = composed_for_sweep(command, [], [word for word in words if not word.startswith("-")])
    shown = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return Template(config.hydra.help.template).substitute(APP_CONFIG_GROUPS=_groups(), CONFIG=OmegaConf.to_yaml(shown))


def _groups() -> str:
    """Each group with its choices."""
    choices: dict[str, list[str]] = defaultdict(list)
    for choice in find_choices(config_dir()):
        choices[choice.group].append(choice.name)
    return "".join(f"{group}: {', '.join(sorted(names))}\n" for group, names in sorted(choices.items()))
