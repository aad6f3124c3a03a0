"""Files of configurations and directories of runs that somebody else made: nothing that they say runs.

What the user types is the user's own; what stands in a file may name components of metvae and nothing else.
"""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from metvae_cli.commands import hydra_gate
from tests.faults.memory import MEGABYTE, peak_growth
from tests.runs import TINY, files, infer, metvae, train

GLOBAL = "# @package _global_\n"
PYTHON = "metvae_cli.targets.python.PythonDensity"
SHORT = (*TINY, "trainer.max_iterations=1")
SHIPPED_SEARCH_PATH = "hydra.searchpath=[file://{here}/menu]"
# What a configuration might be told to call. Of those of metvae: what its modules have imported.
TARGETS = (
    "numpy.testing._private.utils.runstring",
    "pathlib.Path.write_text",
    "torch.load",
    "torch.hub.load",
    "builtins.exec",
    "builtins.eval",
    "os.system",
    "logging.os.system",
    "subprocess.Popen",
    "runpy.run_path",
    "importlib.import_module",
    "hydra.utils.call",
    "hydra._internal.utils._locate",
    "metvae_cli.data.official.os.system",
    "metvae_cli.data.download.os.replace",
    "metvae_cli.models.vae.torch.load",
    "metvae_cli.targets.python.importlib.import_module",
    "metvae_cli.targets.python.load_function",
    "metvae_cli.training.checkpoint.torch.load",
    "metvae_cli.kernels.base.Kernel.__init__.__globals__",
    "metvae_cli.models.encoders.MLPEncoder.__class__",
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a file that leaves a marker where it is run, importable too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "evil.py").write_text(
        f"from pathlib import Path\n\nPath({str(tmp_path / 'marker')!r}).touch()\n\n\n"
        "def log_prob(z):\n    return -(z**2).sum(-1)\n"
    )
    yield tmp_path
    sys.modules.pop("evil", None)


def place(text: str, name: str = "experiment/hostile") -> None:
    path = Path("menu", f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that refuses what it is given, runs nothing and leaves nothing."""
    capsys.readouterr()
    before = files(Path())
    status = metvae(*words)
    captured = capsys.readouterr()
    assert not Path("marker").exists()
    assert status == 2, captured.err
    assert captured.out == ""
    assert files(Path()) == before
    (line,) = captured.err.splitlines()
    assert line.startswith("metvae: error: ")
    return line


def marker() -> str:
    return str(Path("marker").absolute())


def evil() -> str:
    return f"{Path('modules', 'evil.py').absolute()}:log_prob"


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


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_no_file_names_a_function_of_others(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    place(f"_target_: {target}\n_args_: ['touch {marker()}']\n", "encoder/hostile")
    assert "encoder" in refusal(capsys, "train", "--config-dir=menu", "encoder=hostile")
    place(f"_target_: {target}\ncommand: touch {marker()}\n", "encoder/hostile")
    assert f"encoder._target_={target}: " in refusal(capsys, "train", "--config-dir=menu", "encoder=hostile")


@pytest.mark.slow
def test_nor_deep_down_nor_by_detours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METVAE_TEST", "os.system")
    call = f"{{_target_: os.system, command: touch {marker()}}}"
    for kind, text in {
        "nested": f"encoder: {{head: {{a: {call}}}}}",
        "list": f"encoder: {{hidden: [16, {call}]}}",
        "interpolation": f"extra: {call}\nencoder: ${{extra}}",
        "of a string": "extra: os.system\nencoder: {_target_: '${extra}'}",
        "environment": "encoder: {_target_: '${oc.env:METVAE_TEST}'}",
        "decoded": "encoder: {_target_: \"${oc.decode:'os.system'}\"}",
        "created": f"encoder: ${{oc.create:'{{_target_: os.system, command: touch {marker()}}}'}}",
        "partial": f"encoder: {{_partial_: true, _target_: os.system, command: touch {marker()}}}",
        "recursive": "encoder: {_recursive_: true}",
        "converted": "encoder: {_convert_: all}",
        "resolver": "seed: '${eval:1}'",
        "resolver of Hydra": "seed: '${hydra:job.num}'",
        "tag": f"seed: !!python/object/apply:os.system ['touch {marker()}']",
        "itself": "seed: ${seed}",
        "plugins": "plugins: [evil]",
        "bytes": "seed: \x00",
    }.items():
        place(f"{GLOBAL}{text}\n")
        assert refusal(capsys, "train", "--config-dir=menu", "experiment=hostile"), kind


GROUPS = ("dataset", "prior", "encoder", "decoder", "likelihood", "sampler", "objective")


@pytest.mark.slow
def test_a_density_of_a_file_stands_in_no_other_place(capsys: pytest.CaptureFixture[str]) -> None:
    """It is the one component that runs a file, which `metvae infer` lets it do where the file was typed."""
    for group in GROUPS:
        place(f"_target_: {PYTHON}\npath: {evil()}\n", f"{group}/hostile")
        assert f"{group}._target_={PYTHON}" in refusal(capsys, "train", "--config-dir=menu", f"{group}=hostile")
    for group in ("initial", "sampler", "objective"):
        place(f"_target_: {PYTHON}\npath: {evil()}\n", f"{group}/hostile")
        assert f"{group}._target_={PYTHON}" in refusal(capsys, "infer", "--config-dir=menu", f"{group}=hostile")
    place(f"_target_: {PYTHON}\npath: {evil()}\n", "target/hostile")
    assert f"target.path={evil()}" in refusal(capsys, "infer", "--config-dir=menu", "target=hostile")
    place(f"{GLOBAL}hydra: {{overrides: {{task: ['target.path={evil()}']}}}}\n")
    assert "hydra.overrides" in refusal(capsys, "infer", "--config-dir=menu", "target=hostile", "experiment=hostile")
    assert infer("target=python", f"target.path={evil()}", "hydra.run.dir=run") == 0
    assert Path("marker").exists()


def sent() -> tuple[Path, dict[str, object]]:
    """A run that somebody sent, and its configuration, to be changed."""
    assert train("hydra.run.dir=run", "trainer.max_iterations=1") == 0
    stored = Path("run", ".hydra", "config.yaml")
    return stored, yaml.safe_load(stored.read_text())


READERS = (("train", "resume=run"), ("sample", "run=run"), ("evaluate", "run=run"))


@pytest.mark.slow
def test_no_directory_of_a_run_runs_what_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METVAE_TEST", "os.system")
    stored, config = sent()
    Path("run", "evil.py").write_text(Path("modules", "evil.py").read_text())
    hostile: list[dict[str, object]] = [
        {**config, group: {"_target_": PYTHON, "path": "run/evil.py:log_prob"}} for group in GROUPS
    ]
    hostile += [{**config, "encoder": {"_target_": target, "command": f"touch {marker()}"}} for target in TARGETS]
    hostile += [
        {**config, "plugins": ["evil"]},
        {**config, "encoder": {"_target_": "${oc.env:METVAE_TEST}", "command": f"touch {marker()}"}},
        {**config, "encoder": [{"_target_": "os.system"}]},
        {**config, "extra": 1},
        {**config, "seed": "${seed}"},
    ]
    for number, content in enumerate(hostile):
        stored.write_text(yaml.safe_dump(content))
        refusal(capsys, *READERS[number % len(READERS)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "seed: !!python/object/apply:os.system ['touch marker']\n",
        "!!python/object/new:os.system ['touch marker']\n",
        "[1, 2]\n",
        "3\n",
        "",
        "\x00",
        "{",
        "[" * 3000,
        "? [a]\n: 1\n",
        "&a [*a]\n",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{chr(97 + i)}: &{chr(97 + i)} [{', '.join([f'*{chr(96 + i)}'] * 10)}]\n" for i in range(1, 9)),
    ],
    ids=["tag", "object", "list", "number", "nothing", "NUL", "cut", "deep", "odd keys", "circle", "laughs"],
)
def test_no_stored_configuration_is_more_than_plain_values(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    stored, _ = sent()
    stored.write_text(text)
    for words in READERS:
        assert refusal(capsys, *words)


@pytest.mark.slow
def test_what_lies_beside_the_configuration_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    stored, config = sent()
    for name in ("hydra.yaml", "overrides.yaml"):
        stored.with_name(name).write_text(f"- plugins=[evil]\n- !!python/object/apply:os.system ['touch {marker()}']\n")
    manifest = json.loads(Path("run", "manifest.json").read_text())
    manifest |= {"config": {**config, "plugins": ["evil"]}, "directory": ["evil"], "data": [1]}
    Path("run", "manifest.json").write_text(json.dumps(manifest))
    assert metvae("sample", "run=run", "pictures=[prior]", "hydra.run.dir=pictures") == 0
    assert not Path("marker").exists()


@pytest.mark.slow
def test_no_record_of_a_sweep_passes_for_what_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sweep").mkdir()
    for command, word in (
        ("train", "plugins=[evil]"),
        ("train", "+plugins=[evil]"),
        ("infer", f"target.path={evil()}"),
        ("train", f"+hydra.callbacks.x._target_=logging.FileHandler +hydra.callbacks.x.filename={marker()}"),
        ("train", "--config-dir=menu"),
        ("train", "hydra/launcher=slurm"),
    ):
        words = [*word.split(), "seed=0,1"]
        Path("sweep", "sweep.json").write_text(json.dumps({"command": command, "words": words}))
        line = refusal(capsys, command, "-m", "sweep.resume=sweep")
        assert "counts on the command line only" in line


def test_no_directory_of_a_run_lets_a_file_of_its_own_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all that the slow tests try the one that needs a single click: `metvae sample run=` of what was sent."""
    stored, config = sent()
    Path("run", "evil.py").write_text(Path("modules", "evil.py").read_text())
    stored.write_text(yaml.safe_dump({**config, "likelihood": {"_target_": PYTHON, "path": "run/evil.py:log_prob"}}))
    for words in READERS:
        assert "likelihood._target_" in refusal(capsys, *words)


DOUBLED = {
    "lists": ("[x, x]", "[*a{0}, *a{0}]"),
    "mappings": ("{{x: 1, y: 1}}", "{{x: *a{0}, y: *a{0}}}"),
    "merged": ("{{x: 1}}", "{{<<: [*a{0}, *a{0}]}}"),
}
BOMBS = {
    **{
        name: "".join(f"a{i}: &a{i} {(again if i else first).format(i - 1)}\n" for i in range(30))
        for name, (first, again) in DOUBLED.items()
    },
    "itself": "a: &a [*a, *a]\n",
    "itself, later": "a: &a 1\nb: &a [*a, *a]\n",
    "deep": f"a: {'[' * 3000}{']' * 3000}\n",
    "long": "".join(f"a{i}: 1\n" for i in range(30_000)),
    "large": f"a: {'x' * 2**21}\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_unpacks_to_more_than_it_says_is_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    place(GLOBAL + BOMBS[kind])
    lines: list[str] = []

    def attempt() -> None:
        lines.append(refusal(capsys, "train", "--config-dir=menu", "experiment=hostile"))

    assert peak_growth(attempt) < 100 * MEGABYTE
    assert len(lines[0]) < 400
    assert "hostile.yaml: cannot be used, " in lines[0]


def test_aliases_of_a_few_values_are_the_users_own() -> None:
    place(f"{GLOBAL}trainer: {{max_iterations: &few 1, max_epochs: *few}}\n")
    assert metvae("train", "--config-dir=menu", "experiment=hostile", "--cfg", "job") == 0
