"""An argument parser whose errors are one line, like those of every other command."""

import argparse
from typing import NoReturn

from metvae_cli.errors import ConfigError


class OneLineParser(argparse.ArgumentParser):
    """As argparse's, for the parsers of its sub-commands too."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{message}; `{self.prog} --help` shows what may be said")
