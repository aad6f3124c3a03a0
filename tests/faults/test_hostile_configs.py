"""Components in configurations and in directories of runs that somebody else made: nothing that they say runs.

They may name those of metvae and nothing else.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.faults.strangers import GLOBAL, directory, evil, marker, place, refusal
from tests.runs import infer, metvae, train

PYTHON = "metvae_cli.targets.python.PythonDensity"
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
def here(tmp_path: Path) -> Iterator[Path]:
    with directory(tmp_path) as here:
        yield here


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
