"""The gate on `_target_`: what a configuration may name, wherever it comes from, and that a user's own class works."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metvae_cli.errors import ConfigError
from metvae_cli.gate import check_targets, find_class
from metvae_cli.models.encoders import MLPEncoder
from tests.runs import TINY, configuration, files, metvae, train

HOSTILE = [
    "os.system",
    "subprocess.Popen",
    "numpy.testing._private.utils.runstring",
    "pathlib.Path.write_text",
    "pathlib.Path",
    "torch.load",
    "torch.hub.load",
    "torch.nn.Linear",
    "builtins.exec",
    "builtins.open",
    "hydra.utils.instantiate",
    "exec",
    "metvae_cli",
    "metvae_cli.densities.Tensor",
    "metvae_cli.models.encoders.nn.Linear",
    "metvae_cli.models.encoders.Tensor",
    "metvae_cli.models.encoders.Independent",
    "metvae_cli.models.encoders.softplus",
    "metvae_cli.models.encoders.MLPEncoder.forward",
    "metvae_cli.models.encoders._UNIT_SCALE",
    "metvae_cli.models.encoders.__builtins__",
    "metvae_cli.models.nets.mlp",
    "metvae_cli.models._private.Encoder",
    "metvae_cli.gate.importlib.import_module",
    "metvae_cli.tracking.metrics_csv.MetricsFile",
    "metvae_cli.tracking.run_directory.RunDirectory",
    "metvae_cli.training.checkpoint.save_checkpoint",
    "metvae_cli.commands.sample.Request",
    "metvae_cli.kernels.base.Proposal",
    "metvae_cli.data.base.DatasetSource",
    "metvae_cli_evil.models.Encoder",
    "metvae_cli.models.encoders.mlp ",
    "metvae_cli..models.encoders.MLPEncoder",
    "",
]
# Imported, this module leaves a marker; its class is what a user might write.
MODULE = '''\
from pathlib import Path

from torch import nn
from torch.distributions import Independent, Normal

Path("marker").touch()


class MyEncoder(nn.Module):
    """Linear."""

    def __init__(self, event_shape, latent_dim, scale: float = 0.5):
        super().__init__()
        self.net = nn.Linear(64, latent_dim)
        self.scale = scale

    def forward(self, x):
        return Independent(Normal(self.net(x.flatten(1)), self.scale), 1)
'''
KEYS = ("hidden", "activation", "head", "rank", "flow", "flow_layers", "flow_hidden")
MINE = (*(f"~encoder.{key}" for key in KEYS), "encoder._target_=metvae_test_plugin.MyEncoder", "+encoder.scale=0.7")
TINY_MINE = tuple(word for word in TINY if not word.startswith("encoder.")) + MINE


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory in which a module of the user's lies on the path."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "metvae_test_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("metvae_test_plugin", None)


def refusal(config: dict[str, Any], *plugins: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_targets(config, list(plugins))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("target", HOSTILE)
def test_only_components_may_be_named(target: str) -> None:
    assert refusal({"encoder": {"_target_": target}}).startswith(f"encoder._target_={target}: ")


@pytest.mark.parametrize("target", [3, ["os.system"], {"a": 1}, True])
def test_a_target_is_text(target: Any) -> None:
    assert "dotted name" in refusal({"encoder": {"_target_": target}})


def test_what_is_deep_inside_is_found() -> None:
    node = {"_target_": "os.system"}
    assert refusal({"a": {"b": [1, {"c": node}]}}).startswith("a.b[1].c._target_=os.system")
    assert refusal({"encoder": {"_target_": "metvae_cli.models.encoders.MLPEncoder", "hidden": [node]}})


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_"])
def test_keys_that_hydra_would_act_upon_are_refused(key: str) -> None:
    node = {"_target_": "metvae_cli.models.encoders.MLPEncoder", key: ["x"]}
    assert refusal({"encoder": node}).startswith(f"encoder.{key}: ")


def test_components_are_found() -> None:
    target = "metvae_cli.models.encoders.MLPEncoder"
    check_targets({"encoder": {"_target_": target}, "sampler": {"_target_": None}}, [])
    assert find_class(target, "encoder", []) is MLPEncoder


def test_a_plugin_is_an_exact_module_and_what_it_defines() -> None:
    target = "metvae_test_plugin.MyEncoder"
    assert "refused" in refusal({"encoder": {"_target_": target}})
    assert "refused" in refusal({"encoder": {"_target_": target}}, "metvae_test")
    assert not Path("marker").exists()
    check_targets({"encoder": {"_target_": target}}, ["metvae_test_plugin"])
    for name in ("Path", "nn.Linear", "Normal", "None"):
        assert "refused" in refusal({"encoder": {"_target_": f"metvae_test_plugin.{name}"}}, "metvae_test_plugin")


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    "words",
    [
        ("encoder._target_=os.system", "+encoder.command='touch marker'"),
        ("encoder._target_=os.system", "+encoder._args_=['touch marker']"),
        ("encoder._target_=${oc.env:METVAE_TEST_TARGET}",),
        ("sampler._target_=subprocess.Popen", "+sampler.args='touch marker'"),
        ("+decoder.extra={_target_: os.system, command: 'touch marker'}",),
        ("+decoder._partial_=true",),
        ("encoder._target_=metvae_test_plugin.MyEncoder",),
        ("trainer._target_=os.system",),
        ("+trainer._target_=os.system",),
    ],
)
def test_nothing_hostile_on_the_command_line_runs(
    words: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METVAE_TEST_TARGET", "metvae_test_plugin.MyEncoder")
    before = files(here)
    assert metvae("train", *words) == 2
    one_line(capsys)
    assert files(here) == before


def test_a_file_cannot_name_a_plugin(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    menu = here / "menu" / "experiment"
    menu.mkdir(parents=True)
    text = "# @package _global_\nplugins: [metvae_test_plugin]\nencoder:\n  _target_: metvae_test_plugin.MyEncoder\n"
    (menu / "hostile.yaml").write_text(text)
    before = files(here)
    assert metvae("train", "--config-dir=menu", "experiment=hostile") == 2
    assert "named on the command line" in one_line(capsys)
    assert files(here) == before


def test_a_users_encoder_trains_resumes_and_is_sampled(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = "plugins=[metvae_test_plugin]"
    assert metvae("train", *TINY_MINE, plugin, "trainer.max_epochs=1", "hydra.run.dir=run") == 0
    (here / "marker").unlink()
    sys.modules.pop("metvae_test_plugin")
    capsys.readouterr()
    for words in (("train", "resume=run", "trainer.max_epochs=2"), ("sample", "run=run")):
        assert metvae(*words) == 2
        assert "plugins=[metvae_test_plugin]" in one_line(capsys)
    assert not (here / "marker").exists()
    assert metvae("train", "resume=run", "trainer.max_epochs=2", plugin) == 0
    assert metvae("sample", "run=run", plugin, "hydra.run.dir=pictures") == 0
    assert {"latent.png", "prior.png", "reconstructions.png", "chain.png"} <= files(here / "pictures")


def test_a_users_encoder_may_stand_in_a_file_of_theirs(here: Path) -> None:
    menu = here / "menu" / "encoder"
    menu.mkdir(parents=True)
    (menu / "mine.yaml").write_text("_target_: metvae_test_plugin.MyEncoder\nscale: 0.7\n")
    words = [word for word in TINY if not word.startswith("encoder.")]
    chosen = ("--config-dir=menu", "encoder=mine", "plugins=[metvae_test_plugin]", "trainer.max_iterations=2")
    assert metvae("train", *chosen, *words) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plugins=[metvae_no_such_module]",), "there is no module metvae_no_such_module"),
        (("plugins=[metvae_test_plugin]", *MINE, "encoder.scale=wide"), "encoder.scale=wide: expected a number"),
        (
            ("plugins=[metvae_test_plugin]", *MINE, "+encoder.sclae=1"),
            "encoder.sclae: unknown key; did you mean scale?",
        ),
        (("plugins=[broken]",), "plugins=[broken]: cannot be imported (SyntaxError"),
    ],
)
def test_mistakes_with_plugins_are_one_line(
    words: tuple[str, ...], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "modules" / "broken.py").write_text("class Broken(:\n")
    before = files(here) | {"marker"}
    assert metvae("train", *words) == 2
    assert message in one_line(capsys)
    assert files(here) | {"marker"} == before


def test_the_stored_configuration_of_a_run_passes_the_same_gate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("hydra.run.dir=run", "trainer.max_epochs=1") == 0
    capsys.readouterr()
    stored = here / "run" / ".hydra" / "config.yaml"
    text = stored.read_text()
    for hostile in ("os.system", "metvae_cli.tracking.metrics_csv.MetricsFile", "${oc.env:PWD}"):
        stored.write_text(text.replace("metvae_cli.models.encoders.MLPEncoder", hostile))
        for words in (("train", "resume=run"), ("sample", "run=run")):
            before = files(here)
            assert metvae(*words) == 2
            assert "encoder._target_=" in one_line(capsys)
            assert files(here) == before
    stored.write_text(text.replace("plugins: []", "plugins: [metvae_test_plugin]"))
    assert metvae("sample", "run=run") == 2
    assert not (here / "marker").exists()


def test_no_interpolation_of_a_stored_configuration_reaches_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METVAE_TEST_TARGET", "os.system")
    config = configuration("encoder._target_=${oc.env:METVAE_TEST_TARGET}")
    assert refusal(config).startswith("encoder._target_=os.system")
