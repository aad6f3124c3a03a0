"""Files of configurations that somebody else made say nothing to Hydra that runs code or writes files.

What the user types is the user's own.
"""

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from metvae_cli.commands import hydra_gate
from tests.faults.strangers import GLOBAL, directory, marker, place, refusal
from tests.runs import TINY, metvae

SHORT = (*TINY, "trainer.max_iterations=1")
SHIPPED_SEARCH_PATH = "hydra.searchpath=[file://{here}/menu]"


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    with directory(tmp_path) as here:
        yield here


def hydra_nodes() -> dict[str, str]:
    """What a file may say under `hydra`, to run code or to write where it likes."""
    handler = f"{{class: logging.FileHandler, filename: {marker()}}}"
    return {
        "callbacks": f"callbacks: {{x: {{_target_: logging.FileHandler, filename: {marker()}}}}}",
        "interpolation": f"callbacks: {{x: {{_target_: '${{oc.env:METVAE_TEST}}', filename: {marker()}}}}}",
        "handler": f"job_logging: {{handlers: {{x: {handler}}}}}",
        "handler of Hydra": f"hydra_logging: {{handlers: {{x: {handler}}}}}",
        "other file": f"job_logging: {{handlers: {{file: {{filename: {marker()}}}}}}}",
        "factory of a handler": f"job_logging: {{handlers: {{file: {{(): open, file: {marker()}, mode: w}}}}}}",
        "factory of a formatter": "job_logging: {formatters: {plain: {(): evil.log_prob}}}",
        "ext": "job_logging: {handlers: {console: {stream: 'ext://evil.log_prob'}}}",
        "message": "job_logging: {formatters: {dated: {format: 'touch marker'}}}",
        "log beside": "job: {name: ../marker}",
        "configuration elsewhere": f"output_subdir: {marker()}",
        "environment": "job: {env_set: {PATH: /tmp}}",
        "copied environment": "job: {env_copy: [HOME]}",
        "working directory": "job: {chdir: true}",
        "words of the user": "overrides: {task: ['plugins=[evil]']}",
        "words of Hydra": "overrides: {hydra: ['+hydra.callbacks.x._target_=logging.FileHandler']}",
    }


QUICK = ("callbacks", "factory of a handler", "message", "environment", "words of the user")


@pytest.mark.parametrize("all_kinds", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_file_says_to_hydra_what_runs_code(
    all_kinds: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METVAE_TEST", "logging.FileHandler")
    nodes = hydra_nodes()
    for kind, node in nodes.items() if all_kinds else ((kind, nodes[kind]) for kind in QUICK):
        place(f"{GLOBAL}hydra:\n  {node}\n")
        line = refusal(capsys, "train", "--config-dir=menu", "experiment=hostile")
        assert "error: hydra." in line, kind
        assert "stands in a file" in line, kind


@pytest.mark.slow
def test_what_hydra_would_run_without_its_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same files leave the marker where Hydra reads them by itself."""
    monkeypatch.setattr(hydra_gate, "GuardedLoader", hydra_gate.ConfigLoaderImpl)
    ran = set()
    for kind in ("other file", "words of the user", "configuration elsewhere"):
        listed = "plugins: [evil]\n" * (kind == "words of the user")
        place(f"{GLOBAL}{listed}hydra:\n  {hydra_nodes()[kind]}\n")
        assert metvae("train", "--config-dir=menu", "experiment=hostile", *SHORT) == 0
        if Path("marker").exists():
            ran.add(kind)
            shutil.rmtree("marker") if Path("marker").is_dir() else Path("marker").unlink()
    assert len(ran) == 3, ran


# Where such a file may stand, and the words that find it.
WAYS = {
    "an experiment": ("experiment/hostile", GLOBAL, ("--config-dir=menu", "experiment=hostile")),
    "a group of its own": ("extra/hostile", GLOBAL, ("--config-dir=menu", "+extra=hostile")),
    "another package": ("extra/hostile", "# @package hydra.callbacks\n", ("--config-dir=menu", "+extra=hostile")),
    "the main file": ("mine", "defaults: [/train, _self_]\n", ("--config-dir=menu", "--config-name=mine")),
    "another main file": ("train", "defaults: [/train@_here_, _self_]\n", ("--config-path={here}/menu",)),
    "the search path": ("experiment/hostile", GLOBAL, (SHIPPED_SEARCH_PATH, "experiment=hostile")),
    "a sweep": ("experiment/hostile", GLOBAL, ("-m", "--config-dir=menu", "experiment=hostile", "seed=0,1")),
    "a job": ("experiment/hostile", GLOBAL, ("-m", "--config-dir=menu", "experiment=digits_vae,hostile")),
    "what is printed": ("experiment/hostile", GLOBAL, ("--config-dir=menu", "experiment=hostile", "--cfg", "job")),
    "help": ("experiment/hostile", GLOBAL, ("--config-dir=menu", "experiment=hostile", "--hydra-help")),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_a_file_around_the_gate(way: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, head, words = WAYS[way]
    callback = f"x: {{_target_: logging.FileHandler, filename: {marker()}}}\n"
    body = callback if "callbacks" in head else f"hydra:\n  callbacks:\n    {callback}"
    if way == "another main file":
        shutil.copytree(Path(hydra_gate.config_dir()), "menu")
        text = Path("menu", "train.yaml").read_text()
        head, body = "", text.replace("hydra:\n", body, 1)
    place(head + body, name)
    status = metvae("train", *(word.format(here=here) for word in words))
    captured = capsys.readouterr()
    assert not Path("marker").exists()
    if way == "help":  # loads nothing of it
        return
    assert status in (1, 2) if way == "a job" else status == 2, captured.err
    assert "hydra.callbacks" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.slow
@pytest.mark.parametrize("group", ["launcher", "sweeper"])
def test_no_file_says_what_starts_jobs(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("logging.FileHandler", "subprocess.Popen", "evil.log_prob", "metvae_cli.commands.sweep.run_sweep"):
        place(f"_target_: {target}\nfilename: {marker()}\n", f"hydra/{group}/hostile")
        line = refusal(capsys, "train", "-m", "--config-dir=menu", f"hydra/{group}=hostile", "seed=0,1")
        assert f"hydra.{group}._target_={target}" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("node", "key"),
    [
        ("launcher: {setup: [touch marker]}", "hydra.launcher.setup"),
        ('launcher: {partition: "x\\ntouch marker"}', "hydra.launcher.partition"),
        ("launcher: {submitit_folder: /tmp}", "hydra.launcher.submitit_folder"),
        ("launcher: {additional_parameters: {wrap: touch marker}}", "hydra.launcher.additional_parameters"),
        ("sweeper: {params: {plugins: '[evil]'}}", "hydra.sweeper.params.plugins"),
        ("sweeper: {params: {+plugins: '[evil]'}}", "hydra.sweeper.params.+plugins"),
        ("sweeper: {params: {target.path: evil.py:f}}", "hydra.sweeper.params.target.path"),
        ("sweeper: {params: {hydra.verbose: 'true'}}", "hydra.sweeper.params.hydra.verbose"),
    ],
)
def test_no_file_says_what_a_launcher_runs(node: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    place(f"{GLOBAL}defaults:\n  - override /hydra/launcher: slurm\nhydra:\n  {node}\n")
    assert f"error: {key}" in refusal(capsys, "train", "-m", "--config-dir=menu", "experiment=hostile", "seed=0,1")


@pytest.mark.slow
def test_what_is_the_users_own_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """Where runs go, numbers of a launcher and what is swept over may stand in files; the rest may be typed."""
    place(
        f"{GLOBAL}defaults:\n  - override /hydra/launcher: local_jobs\nhydra:\n  launcher: {{n_jobs: 1}}\n"
        "  run: {dir: mine}\n  sweep: {dir: ours}\n  verbose: false\n  sweeper: {params: {seed: '0,1'}}\n"
    )
    named = ("--config-dir=menu", "experiment=hostile")
    assert metvae("train", *named, *SHORT, "+hydra.job.env_set.METVAE_TEST=1") == 0
    assert Path("mine", "summary.json").is_file()
    assert metvae("train", "-m", *named, *SHORT) == 0
    assert len(list(Path("ours").glob("*/summary.json"))) == 2


def test_no_package_is_imported_for_its_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    place("defaults: [/train, _self_]\nhydra: {searchpath: ['pkg://evil']}\n", "mine")
    assert "hydra.searchpath" in refusal(capsys, "train", "--config-dir=menu", "--config-name=mine")


def test_no_pickle_is_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Gadget:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {marker()}",)

    Path("config.pickle").write_bytes(pickle.dumps(Gadget()))
    for word in ("--experimental-rerun=config.pickle", "--exp=config.pickle"):
        for command in ("train", "sample", "evaluate", "infer"):
            assert "pickle" in refusal(capsys, command, word)
