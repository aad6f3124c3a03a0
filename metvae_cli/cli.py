"""`metvae <command> ...`: picks `commands/<command>.py`, calls its `main`, turns errors into an exit status.

Nothing heavy is imported here, so that `--help` and a misspelt command answer at once.
"""

import importlib
import os
import sys
from collections.abc import Callable
from types import MappingProxyType

from metvae_cli import __version__
from metvae_cli.errors import ConfigError, RunError, printable

COMMANDS = MappingProxyType(
    {
        "train": "fit a model: log, save checkpoints, evaluate; -m sweeps over several values",
        "evaluate": "log-likelihoods with error bars, diagnostics of sampler and latents",
        "sample": "pictures of a trained model: samples, reconstructions, chains, walks, in-painting",
        "infer": "approximate a density without data, by variational inference or MCMC",
        "compare": "runs and sweeps in one table: means over seeds, paired differences, curves",
        "configs": "list, show or copy the choices that ship with metvae",
        "info": "versions, devices and data found: what a bug report needs",
    }
)

EXAMPLES = """\
  metvae train dataset=digits sampler=none objective=iwae   choose parts by name
  metvae train -m seed=0,1,2 latent_dim=2,8               sweep: six runs
  metvae evaluate run=outputs/train/RUN             its likelihood, three ways
  metvae sample run=outputs/train/RUN               pictures of what was learned
  metvae compare outputs/train                      all of them in one table
  metvae configs list sampler                       which samplers there are"""

USAGE_STATUS = 2
FAILURE_STATUS = 1
INTERRUPT_STATUS = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE


def main(argv: list[str] | None = None) -> int:
    """Run `metvae` with `argv` (the words after the program's name; the process's own by default).

    Returns:
        The exit status: 0 done, 1 the run failed, 2 usage or configuration, 130 interrupted, 141 nobody reads
        the output.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        status = _status_of(words)
        sys.stdout.flush()  # a closed pipe is to be noticed here, not in the interpreter's last breath
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE_STATUS
    return status


def _status_of(words: list[str]) -> int:
    """Do what the words ask and turn every ending that is not a defect of metvae into an exit status."""
    try:
        return _dispatch(words)
    except ConfigError as error:
        return _report(error, USAGE_STATUS)
    except RunError as error:
        return _report(error, FAILURE_STATUS)
    except KeyboardInterrupt:
        print("metvae: interrupted", file=sys.stderr)
        return INTERRUPT_STATUS
    except SystemExit as end:  # argparse and Hydra end so, after --help for one
        if isinstance(end.code, str):
            raise
        return end.code or 0


def _dispatch(words: list[str]) -> int:
    """Answer what needs no command, or call the command that the first word names."""
    if not words:
        print(_help_text(), file=sys.stderr)
        return USAGE_STATUS
    first, rest = words[0], words[1:]
    if first == "help" and rest:
        first, rest = rest[0], ["--help"]
    answers: dict[str, Callable[[], str]] = {"--help": _help_text, "-h": _help_text, "help": _help_text}
    answers["--version"] = _version_text
    if first in answers:
        print(answers[first]())
        return 0
    if first == "--completion":
        print(_completion_script(rest), end="")
        return 0
    if first not in COMMANDS:
        raise ConfigError(_unknown_command(first))
    command_main: Callable[[list[str]], int] = importlib.import_module(f"metvae_cli.commands.{first}").main
    return command_main(rest)


def _help_text() -> str:
    """Return what `metvae --help` prints."""
    commands = "\n".join(f"  {name:<10}{description}" for name, description in COMMANDS.items())
    return f"""\
metvae: variational auto-encoders with Markov chain Monte Carlo

usage: metvae <command> [group=choice ...] [key=value ...]

commands:
{commands}

examples:
{EXAMPLES}

`metvae <command> --help` tells what a command takes, `metvae --version` prints versions and
`eval "$(metvae --completion bash)"` makes the Tab key complete commands, groups and choices."""


def _version_text() -> str:
    """Return the versions of metvae and of what it stands on, without importing any of it."""
    from importlib.metadata import PackageNotFoundError, version

    lines = [f"metvae {__version__}"]
    for package in ("torch", "hydra-core"):
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} not installed")
    lines.append("python " + ".".join(str(number) for number in sys.version_info[:3]))
    return "\n".join(lines)


def _completion_script(shells: list[str]) -> str:
    """Return the script that makes a shell complete `metvae`."""
    from pathlib import Path

    if shells != ["bash"]:
        asked = " ".join(shells) or "nothing"
        raise ConfigError(f"--completion is for one shell, bash, not {asked}: metvae --completion bash")
    script = Path(__file__).with_name("completion.bash").read_text(encoding="utf-8")
    return script.replace("@COMMANDS@", " ".join(COMMANDS))


def _unknown_command(word: str) -> str:
    """Return the message for a first word that is no command, with the nearest one where there is one."""
    from difflib import get_close_matches

    nearest = get_close_matches(word, COMMANDS, n=1)
    remedy = f"did you mean '{nearest[0]}'?" if nearest else f"there are {', '.join(COMMANDS)}"
    if "=" in word:
        remedy = f"a command comes first: metvae train {word}"
    return f"unknown command '{word}'; {remedy}"


def _report(error: Exception, status: int) -> int:
    """Print an error as one line, after its traceback where HYDRA_FULL_ERROR=1 asks for it."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        import traceback

        traceback.print_exception(error)
    print(f"metvae: error: {printable(str(error))}", file=sys.stderr)
    return status


def _discard_output() -> None:
    """Point standard output at nothing, so that the interpreter's own flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
