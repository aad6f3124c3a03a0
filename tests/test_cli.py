"""`metvae` as a user meets it: help, versions, errors and their exit status, completion."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from metvae_cli import __version__, cli
from metvae_cli.errors import ConfigError, RunError

CHECKOUT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "hydra", "omegaconf", "numpy", "rich", "matplotlib", "sklearn"}


def python(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a process of its own, which finds metvae_cli wherever it is started."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)} | variables
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)


def metvae(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return python("-m", "metvae_cli.cli", *words, **variables)


def test_help_names_every_command_and_some_examples() -> None:
    result = metvae("--help")
    assert result.returncode == 0
    assert result.stderr == ""
    for command in cli.COMMANDS:
        assert f"\n  {command} " in result.stdout
    assert sum(line.startswith("  metvae ") for line in result.stdout.splitlines()) >= 4
    assert all(len(line) <= 100 for line in result.stdout.splitlines())


@pytest.mark.parametrize("word", ["-h", "help"])
def test_help_has_its_other_names(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 0
    assert capsys.readouterr().out.startswith("metvae: ")


def test_without_arguments_help_goes_to_stderr_with_the_status_of_wrong_usage() -> None:
    result = metvae()
    assert result.returncode == 2
    assert result.stdout == ""
    assert "usage: metvae <command>" in result.stderr


@pytest.mark.parametrize("word", ["--help", "--version", "trian"])
def test_what_needs_no_command_imports_nothing_heavy(word: str) -> None:
    result = python("-X", "importtime", "-m", "metvae_cli.cli", word)
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "metvae_cli" in imported
    assert imported & HEAVY == set()


def test_help_is_fast() -> None:
    """Best of several, against a Python that does nothing, so that a busy machine does not decide."""

    def best(run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    assert best(lambda: metvae("--help")) - best(lambda: python("-c", "pass")) < 0.3


def test_version_names_metvae_and_what_it_stands_on() -> None:
    result = metvae("--version")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        f"metvae {__version__}",
        f"torch {version('torch')}",
        f"hydra-core {version('hydra-core')}",
        f"python {sys.version.split()[0]}",
    ]


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("trian", "did you mean 'train'?"),
        ("config", "did you mean 'configs'?"),
        ("xyz", "there are train, evaluate, sample, infer, compare, configs, info"),
        ("sampler=hmc", "a command comes first: metvae train sampler=hmc"),
    ],
)
def test_an_unknown_command_is_one_line_with_a_remedy(word: str, remedy: str) -> None:
    result = metvae(word)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"metvae: error: unknown command '{word}'; {remedy}\n"


def test_every_command_has_its_file_and_every_such_file_is_a_command() -> None:
    files = (CHECKOUT / "metvae_cli" / "commands").glob("*.py")
    with_main = {path.stem for path in files if "\ndef main(" in path.read_text(encoding="utf-8")}
    assert set(cli.COMMANDS) == with_main


def pretend_train(monkeypatch: pytest.MonkeyPatch, main: Callable[[list[str]], int]) -> None:
    """Put a command in train's place for one test."""
    module = ModuleType("metvae_cli.commands.train")
    monkeypatch.setattr(module, "main", main, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def main(argv: list[str]) -> int:
        raise error

    return main


def test_a_command_gets_the_words_after_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    received = []
    pretend_train(monkeypatch, lambda argv: received.append(argv) or 7)
    assert cli.main(["train", "sampler=hmc", "--help"]) == 7
    assert cli.main(["help", "train"]) == 7
    assert received == [["sampler=hmc", "--help"], ["--help"]]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigError("seed=ten is no number"), 2, "metvae: error: seed=ten is no number\n"),
        (RunError("the loss is\nnot finite"), 1, "metvae: error: the loss is not finite\n"),
        (KeyboardInterrupt(), 130, "metvae: interrupted\n"),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_errors_become_one_line_and_a_status(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    pretend_train(monkeypatch, raising(error))
    assert cli.main(["train"]) == status
    assert capsys.readouterr().err == message


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_train(monkeypatch, raising(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


def test_hydra_full_error_shows_the_traceback_before_the_line() -> None:
    quiet = metvae("configs", "show", "nonsense", HYDRA_FULL_ERROR="0")
    full = metvae("configs", "show", "nonsense", HYDRA_FULL_ERROR="1")
    assert quiet.returncode == full.returncode == 2
    assert len(quiet.stderr.splitlines()) == 1
    assert full.stderr.startswith("Traceback")
    assert full.stderr.endswith(quiet.stderr)


def test_a_reader_that_leaves_is_no_error() -> None:
    command = shlex.join([sys.executable, "-m", "metvae_cli.cli", "--help"])
    # The reader must be gone before metvae writes, so metvae waits for a moment.
    script = f"(sleep 0.5; {command}) | true; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert result.returncode == cli.BROKEN_PIPE_STATUS
    assert result.stderr == ""


# Stands for a Hydra application: it sees exactly what Hydra's own completion gets to see.
HYDRA_APPLICATION = """\
import hydra

@hydra.main(version_base="1.3", config_path={path!r}, config_name="train")
def run(cfg):
    pass

run()
"""


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A folder with a `metvae` whose `train` is a small Hydra application with two samplers."""
    group = tmp_path / "configs" / "sampler"
    group.mkdir(parents=True)
    for name in ("hmc", "langevin"):
        (group / f"{name}.yaml").write_text("step_size: 0.1\n", encoding="utf-8")
    (tmp_path / "configs" / "train.yaml").write_text("defaults: [sampler: hmc, _self_]\nseed: 0\n")
    application = tmp_path / "application.py"
    application.write_text(HYDRA_APPLICATION.format(path=str(tmp_path / "configs")), encoding="utf-8")
    program = tmp_path / "metvae"
    interpreter = shlex.quote(sys.executable)
    program.write_text(
        "#!/usr/bin/env bash\n"
        f'if [[ $1 == train ]]; then shift; exec {interpreter} {shlex.quote(str(application))} "$@"; fi\n'
        f'exec {interpreter} -m metvae_cli.cli "$@"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    return tmp_path


def completions(shell: Path, line: str, breaks: str = " \t\n=:") -> list[str]:
    """What bash would offer at the end of `line`."""
    words = [*line.split(" ")]
    script = f"""
        eval "$(metvae --completion bash)"
        COMP_WORDBREAKS={shlex.quote(breaks)}
        COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}
        COMP_WORDS=({shlex.join(words)}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _metvae
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{shell}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "PATH": path}
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert result.returncode == 0
    assert result.stderr == ""
    return result.stdout.split()


def test_the_completion_script_is_bash(tmp_path: Path) -> None:
    result = metvae("--completion", "bash")
    assert result.returncode == 0
    script = tmp_path / "completion.bash"
    script.write_text(result.stdout, encoding="utf-8")
    checked = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("words", [["--completion"], ["--completion", "fish"]])
def test_completion_is_for_bash_alone(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert "metvae --completion bash" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("metvae ", {*cli.COMMANDS, "help", "--help", "--version", "--completion"}),
        ("metvae tr", {"train"}),
        ("metvae --v", {"--version"}),
        ("metvae configs ", {"list", "show", "copy", "--help"}),
        ("metvae info --j", {"--json"}),
        ("metvae train sam", {"sampler=", "sampler."}),
        ("metvae train sampler=", {"hmc", "langevin"}),
        ("metvae train seed=1 sampler=h", {"hmc"}),
        ("metvae train sampler.s", {"sampler.step_size="}),
    ],
)
def test_completion_offers(shell: Path, line: str, offered: set[str]) -> None:
    assert set(completions(shell, line)) == offered


def test_completion_offers_whole_words_where_equal_signs_break_none(shell: Path) -> None:
    assert completions(shell, "metvae train sampler=l", breaks=" \t\n") == ["sampler=langevin"]
