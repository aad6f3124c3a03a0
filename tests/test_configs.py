"""Every key of every shipped file is an argument of what it configures, and every experiment can be built."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf

from metvae_cli import build_inference as inference
from metvae_cli.build import GROUPS, build_experiment
from metvae_cli.data.base import Dataset, Split
from metvae_cli.data.mnist import MNIST
from metvae_cli.errors import ConfigError
from metvae_cli.gate import find_class
from metvae_cli.objectives.weights import make_path
from metvae_cli.paths import config_dir
from metvae_cli.samplers.assembly import assemble_sampler
from metvae_cli.schema import check
from metvae_cli.training import device
from metvae_cli.training.metrics import batch_metrics
from metvae_cli.training.optimizer import make_optimizer
from metvae_cli.training.settings import TrainerSettings
from tests.runs import configuration

PLAIN = config_dir() / "objective" / "none.yaml"  # sets keys of two groups
EVERY_GROUP = {*GROUPS, *inference.GROUPS}
FILES = sorted(path for path in config_dir().glob("*/*.yaml") if path.parent.name in EVERY_GROUP and path != PLAIN)
EXPERIMENTS = sorted(path.stem for path in config_dir().glob("experiment/*.yaml"))
OF_INFERENCE = [name for name in EXPERIMENTS if name.startswith("infer_")]
# What the program itself knows and hands to a constructor that asks for it.
WIRED = {
    "prior": ("latent_dim", "encoder", "draw_data", "bounded"),
    "encoder": ("latent_dim", "event_shape", "visible_dim"),
    "decoder": ("latent_dim", "parameter_shape"),
    "initial": ("latent_dim",),
    "sampler": ("latent_dim", "context_dim", "num_steps", "step_size"),
}


def name_of(path: Path) -> str:
    return path.relative_to(config_dir()).as_posix()


def node_of(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path), resolve=True))


def bind(group: str, node: Mapping[str, Any]) -> None:
    """Raise ConfigError unless each key is an argument of what the group's node configures, of the right type."""
    functions: dict[str, Callable[..., Any]] = {"optimizer": make_optimizer, "trainer": TrainerSettings}
    if group in functions:
        wired = {"parameters": [], "max_epochs": 1} if group == "optimizer" else {}
        check(functions[group], node, group, wired)
        return
    own = {key: value for key, value in node.items() if key != "_target_"}
    if group == "sampler":
        general = inspect.signature(assemble_sampler).parameters
        shared = {key: value for key, value in own.items() if key in general}
        check(assemble_sampler, shared, group, {"latent_dim": 2, "make_proposals": None})
        own = {key: value for key, value in own.items() if key not in general}
        if node["_target_"] is None:
            assert own == {}
            return
    wired = dict.fromkeys(WIRED.get(group, ()))
    check(find_class(node["_target_"], group, []), own, group, wired)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_key_is_an_argument(path: Path) -> None:
    bind(path.parent.name, node_of(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_key_that_may_be_set_is_shown(path: Path) -> None:
    """The files are the user's menu: an argument that stands in none of them would be hidden."""
    group, node = path.parent.name, node_of(path)
    if node.get("_target_", "") is None:
        return
    functions: dict[str, list[Callable[..., Any]]] = {"optimizer": [make_optimizer], "trainer": [TrainerSettings]}
    targets = functions.get(group) or [find_class(node["_target_"], group, [])]
    targets += [assemble_sampler] if group == "sampler" else []
    known = {
        name
        for target in targets
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }
    known -= {"latent_dim", "context_dim", "event_shape", "parameter_shape", "make_proposals", "parameters"}
    known -= {"visible_dim", "encoder", "draw_data", "bounded"}
    known -= {"num_steps"} if group == "objective" else set()
    known -= {"max_epochs"} if group == "optimizer" else set()
    assert node.keys() - {"_target_"} == known


@pytest.mark.parametrize(
    ("group", "choice", "key", "value"),
    [
        ("sampler", "hmc", "num_stesp", 3),
        ("sampler", "langevin", "num_leapfrog", 1),
        ("sampler", "hmc", "step_size", "0.1"),
        ("encoder", "mlp", "widths", [3]),
        ("encoder", "mlp", "hidden", 128),
        ("encoder", "mlp", "latent_dim", 3),
        ("dataset", "digits", "root", "data"),
        ("optimizer", "adam", "learning_rate", 0.1),
        ("optimizer", "adam", "milestones", [0.5]),
        ("trainer", "default", "max_epoch", 1),
        ("trainer", "default", "threads", True),
        ("objective", "elbo", "bookkeeping", "pathwise"),
        ("likelihood", "bernoulli", "scale", 1.0),
    ],
)
def test_a_wrong_key_or_value_would_be_found(group: str, choice: str, key: str, value: Any) -> None:
    node = node_of(config_dir() / group / f"{choice}.yaml")
    bind(group, node)
    with pytest.raises(ConfigError, match=rf"{group}\.{key}"):
        bind(group, {**node, key: value})


@pytest.mark.parametrize("path", sorted(config_dir().rglob("*.yaml")), ids=name_of)
def test_every_file_begins_with_a_line_that_describes_it(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 8 or path.parent.name in ("optimizer", "prior")
    assert max(len(line) for line in path.read_text().splitlines()) <= 120


def test_every_group_has_a_choice_and_every_folder_is_a_group() -> None:
    folders = {path.name for path in config_dir().iterdir() if path.is_dir()}
    assert folders == EVERY_GROUP | {"experiment", "hydra"}
    assert {path.parent.name for path in FILES} == EVERY_GROUP
    assert len(EXPERIMENTS) >= 8


def tiny_mnist(self: MNIST) -> Dataset:
    """Stands for MNIST, of its shape."""
    values = torch.zeros(8, 1, 28, 28, dtype=torch.uint8)
    parts = [Split(values, torch.zeros(8, dtype=torch.int64)) for _ in range(3)]
    return Dataset("mnist", parts[0], parts[1], parts[2], "binary")


@pytest.mark.parametrize("name", ["", *sorted({*EXPERIMENTS} - {*OF_INFERENCE})])
def test_every_experiment_can_be_built_and_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "load", tiny_mnist)
    words = [f"experiment={name}"] if name else []
    learner = build_experiment(configuration(*words, "trainer.device=cpu"), []).learner
    output = learner.objective(learner.model, learner.sampler, learner.dataset.batch(torch.arange(4)))
    output.loss.backward()
    learner.optimizer.step()
    assert torch.isfinite(batch_metrics(output, learner.model).values).all()


@pytest.mark.parametrize("name", ["", *OF_INFERENCE])
def test_every_experiment_of_inference_can_be_built_and_steps(name: str) -> None:
    """Where nothing is trained, its chain does."""
    config = configuration(*([f"experiment={name}"] if name else []), "trainer.device=cpu", command="infer")
    assert all(f"infer_{method.removeprefix('infer_')}" in OF_INFERENCE for method in config["methods"])
    run = inference.build_inference(config, [], [])
    x = run.model.blank(4)
    if run.learner is None:
        assert config["objective"]["_target_"] is None
        posterior = run.model.posterior(x)
        path = make_path(posterior, posterior.log_prob, run.model.joint(x), run.sampler)
        found = run.sampler(posterior.rsample((1,)), path, create_graph=False).final.log_final
    else:
        output = run.learner.objective(run.model, run.sampler, x)
        output.loss.backward()
        run.learner.optimizer.step()
        found = batch_metrics(output, run.model).values
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_choice_composes(path: Path) -> None:
    group, choice = path.parent.name, path.stem
    command = "train" if group in GROUPS else "infer"
    assert configuration(f"{group}={choice}", command=command)[group] == node_of(path)


def test_every_key_of_infer_is_an_argument_and_the_other_way_round() -> None:
    config = configuration(command="infer")
    assert set(config) == {*inference.SPINE_KEYS, *inference.GROUPS, "evaluation"}
    assert config["evaluation"].keys() == inspect.signature(inference.EvaluationSettings).parameters.keys()
    check(inference.EvaluationSettings, config["evaluation"], "evaluation", {})
    assert inspect.signature(inference.InferenceSpine).parameters.keys() == {*inference.SPINE_KEYS}


def test_a_plain_chain_sets_keys_that_samplers_have_and_may_be_overruled() -> None:
    node = node_of(PLAIN)
    assert node.keys() == {"objective", "sampler"}
    config = configuration("objective=none", "sampler=hmc", "sampler.acceptance=barker", command="infer")
    assert config["objective"] == {"_target_": None}
    assert config["sampler"].keys() == node_of(config_dir() / "sampler" / "hmc.yaml").keys()
    assert config["sampler"]["acceptance"] == "barker"
    assert config["sampler"]["step_size_rule"] == node["sampler"]["step_size_rule"]


def test_a_small_model_runs_in_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    build_experiment(configuration("trainer.device=cpu"), [])
    assert asked == [1]
    monkeypatch.setattr(device, "_THREADS_AT_START", 7)
    build_experiment(configuration("trainer.device=cpu", "encoder.hidden=[1000,1000]"), [])
    assert asked == [1, 7]
    build_experiment(configuration("trainer.device=cpu", "encoder.hidden=[1000,1000]", "trainer.threads=1"), [])
    assert asked == [1, 7, 1]
