"""From a configuration to objects. The only file that sees both.

`build_experiment` walks through the groups in the order in which mistakes are cheapest to find, and turns each into an
object of a class that knows nothing of configurations. Constructors are called with the keys of their node and with
those of the values below that their signature asks for:

    latent_dim        D                              every component
    event_shape       shape of one datum             encoder
    parameter_shape   of the likelihood's output     decoder
    visible_dim       coordinates the decoder sees   encoder (and the decoder's own latent_dim)
    encoder, draw_data, bounded                      prior, if it is made of encoded data
    num_steps         K                              objective
    step_size         a kernel's StepSize            proposal
"""

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from metvae_cli.data.base import Dataset, DatasetSource
from metvae_cli.errors import ConfigError
from metvae_cli.gate import check_targets, find_class, import_plugins
from metvae_cli.kernels.base import Proposal, ProposalFamily
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.models.vae import VAE
from metvae_cli.objectives.base import Objective
from metvae_cli.objectives.cubo import ChiObjective
from metvae_cli.objectives.fisher import FisherObjective
from metvae_cli.objectives.vcd import ContrastiveObjective
from metvae_cli.objectives.weights import WeightObjective, draws_decisions
from metvae_cli.paths import config_dir
from metvae_cli.samplers.assembly import assemble_sampler, make_adaptations
from metvae_cli.samplers.chain import Sampler
from metvae_cli.schema import Spine, call, did_you_mean, key_name
from metvae_cli.stored_config import data_of, stored_config
from metvae_cli.tracking.run_directory import run_id
from metvae_cli.training.checkpoint import load_checkpoint, require_finite
from metvae_cli.training.device import prepare_device, seed_everything, set_threads
from metvae_cli.training.fabric import join_processes
from metvae_cli.training.optimizer import make_optimizer
from metvae_cli.training.processes import Processes
from metvae_cli.training.settings import TrainerSettings
from metvae_cli.training.state import Learner

SPINE_KEYS = ("seed", "latent_dim", "plugins", "resume", "sweep")
GROUPS = ("dataset", "prior", "encoder", "decoder", "likelihood", "sampler", "objective", "optimizer", "trainer")

log = logging.getLogger(__name__)


class Experiment(NamedTuple):
    """What a configuration describes. notes: things about it worth telling the user."""

    learner: Learner[VAE]
    settings: TrainerSettings
    seed: int
    device: torch.device
    notes: list[str]
    processes: Processes


def build_experiment(config: Mapping[str, Any], plugins: Sequence[str], data: Dataset | None = None) -> Experiment:
    """Everything that training needs, on its device, with the random streams set to the seed.

    Args:
        config: resolved plain configuration
        plugins: modules that the user named on the command line
        data: those of the configuration, where they have been loaded

    Raises:
        ConfigError: anything that cannot be done, before anything is written
    """
    spine, settings = check_config(config, plugins)
    processes, name = join_processes(settings)
    device = prepare_device(name, settings.threads, "trainer.")
    source = cast(DatasetSource, construct(config["dataset"], "dataset", plugins, {}))
    dataset = source.load() if data is None else data
    seed_everything(spine.seed)
    model, sampler = build_model(config, plugins, dataset.event_shape, dataset)
    model.to(device).network_dtype = torch.bfloat16 if settings.precision == "bf16-mixed" else None
    sampler.to(device).checkpoints = settings.checkpoint_chain
    objective = build_objective(config, plugins, sampler)
    notes = validate(objective, sampler)
    _refuse_prior_of_encoder(config, plugins, objective)
    if settings.score_warmup_epochs and not (isinstance(objective, WeightObjective) and draws_decisions(sampler)):
        notes.append("trainer.score_warmup_epochs: has no effect, since this combination has no score-function term")
    _check_inference_iterations(settings, len(dataset.train), source.batch_size)
    parameters = [*model.parameters(), *sampler.parameters()]
    set_threads(settings.threads, sum(parameter.numel() for parameter in parameters), settings.devices)
    wired = {"parameters": parameters, "max_epochs": settings.max_epochs}
    optimizer, scheduler = call(make_optimizer, config["optimizer"], "optimizer", wired)
    adaptations = [
        *make_adaptations(sampler, config["sampler"].get("target_accept", 0.65)),
        *(part.to(device) for part in objective.adaptations),
    ]
    learner = Learner(
        model, sampler, objective, dataset.to(device), source.batch_size, optimizer, scheduler, adaptations
    )
    return Experiment(learner, settings, spine.seed, device, notes, processes)


def check_config(config: Mapping[str, Any], plugins: Sequence[str]) -> tuple[Spine, TrainerSettings]:
    """What can be said without building: the gate, the spine and the trainer's settings."""
    check_shape(config, SPINE_KEYS, GROUPS)
    spine = call(Spine, {key: config[key] for key in SPINE_KEYS if key in config}, "")
    import_plugins(spine.plugins, plugins)
    check_targets(config, plugins)
    return spine, call(TrainerSettings, config["trainer"], "trainer")


def check_shape(config: Mapping[str, Any], keys: Sequence[str], groups: Sequence[str]) -> None:
    """Raise ConfigError unless the configuration has these keys and groups at its top, and no others."""
    for name in config:
        if name not in (*keys, *groups):
            raise ConfigError(f"{name}: unknown key at the top of the configuration")
    for name in groups:
        if not isinstance(config.get(name), Mapping):
            raise ConfigError(
                f"{name}={config.get(name)}: choose one; `metvae configs list {name}` shows which there are"
            )


def build_model(
    config: Mapping[str, Any], plugins: Sequence[str], event_shape: tuple[int, ...], dataset: Dataset
) -> tuple[VAE, Sampler]:
    """Model and sampler for data of a shape."""
    wired: dict[str, Any] = {"latent_dim": config["latent_dim"], "event_shape": event_shape}
    likelihood = cast(Any, construct(config["likelihood"], "likelihood", plugins, wired))
    if dataset.support not in likelihood.supports:
        raise ConfigError(_misfit(config, dataset))
    wired["parameter_shape"] = likelihood.parameter_shape(event_shape)
    prior, encoder = _prior_and_encoder(config, plugins, wired, dataset)
    decoder = cast(Any, construct(config["decoder"], "decoder", plugins, {**wired, "latent_dim": prior.visible_dim}))
    sampler = build_sampler(config, plugins)
    return VAE(prior, encoder, decoder, likelihood, cloned=sampler.clones), sampler


def _prior_and_encoder(
    config: Mapping[str, Any], plugins: Sequence[str], wired: Mapping[str, Any], dataset: Dataset
) -> tuple[Any, Any]:
    """Either may need the other: a prior the encoder (VampPrior), an encoder what the decoder sees (two levels)."""
    if not _prior_uses_encoder(config, plugins):
        prior = cast(Any, construct(config["prior"], "prior", plugins, wired))
        levels = {**wired, "visible_dim": prior.visible_dim}
        return prior, construct(config["encoder"], "encoder", plugins, levels)
    levels = {**wired, "visible_dim": wired["latent_dim"]}
    encoder = construct(config["encoder"], "encoder", plugins, levels)

    def draw_data(count: int) -> Tensor:
        return dataset.batch(torch.randint(len(dataset.train), (count,)))

    bounded = dataset.support in ("binary", "levels", "unit")
    data = {"encoder": encoder, "draw_data": draw_data, "bounded": bounded}
    return cast(Any, construct(config["prior"], "prior", plugins, {**wired, **data})), encoder


def _misfit(config: Mapping[str, Any], dataset: Dataset) -> str:
    """That the likelihood is none of these data, and which are."""
    fitting, chosen = [], config["likelihood"]["_target_"]
    for path in sorted((config_dir() / "likelihood").glob("*.yaml")):
        target = cast(DictConfig, OmegaConf.load(path))["_target_"]
        chosen = path.stem if target == chosen else chosen
        if dataset.support in cast(Any, find_class(target, "likelihood", [])).supports:
            fitting.append(path.stem)
    image = "binarization" in config["dataset"] and dataset.support in ("binary", "levels")
    grey = ", or another dataset.binarization" if image else ""
    return (
        f"likelihood={chosen}: does not fit the data ({dataset.name}), whose values are {dataset.support}; "
        f"set likelihood={' or '.join(fitting)}{grey}"
    )


def build_sampler(config: Mapping[str, Any], plugins: Sequence[str]) -> Sampler:
    """The sampler. Its node holds the keys of `assemble_sampler` beside those of the proposal that `_target_` names."""
    node = {key: value for key, value in config["sampler"].items() if key != "_target_"}
    target = config["sampler"].get("_target_")
    wiring = ("make_proposals", "latent_dim")
    general = [name for name in inspect.signature(assemble_sampler).parameters if name not in wiring]
    own = {key: value for key, value in node.items() if key not in general}
    if target is None and own:
        raise ConfigError(
            f"sampler.{next(iter(own))}: belongs to a proposal, and sampler._target_ names none; choose sampler=hmc, "
            "or sampler=none, whose num_steps is 0"
        )
    latent_dim = config["latent_dim"]
    wired = {"latent_dim": latent_dim, "context_dim": 2 * latent_dim, "num_steps": node.get("num_steps", 0)}
    found = find_class(target, "sampler", plugins) if target else Proposal
    settable = [name for name in inspect.signature(found).parameters if name not in (*wired, "step_size")]
    for key in own:
        if key not in settable:
            raise ConfigError(f"sampler.{key}: unknown key{did_you_mean(key, [*general, *settable])}")

    def make_proposals(step_sizes: Sequence[StepSize]) -> Sequence[Proposal]:
        if issubclass(found, ProposalFamily):
            return call(found, own, "sampler", wired).proposals(step_sizes)
        return [
            cast(Proposal, call(found, own, "sampler", {**wired, "step_size": step_size})) for step_size in step_sizes
        ]

    shared = {key: value for key, value in node.items() if key not in own}
    together = {"latent_dim": latent_dim, "make_proposals": make_proposals if target else None}
    return call(assemble_sampler, shared, "sampler", together)


def build_objective(config: Mapping[str, Any], plugins: Sequence[str], sampler: Sampler) -> Objective:
    """The objective."""
    wired = {"num_steps": sampler.num_steps}
    return cast(Objective, construct(config["objective"], "objective", plugins, wired))


def _prior_uses_encoder(config: Mapping[str, Any], plugins: Sequence[str]) -> bool:
    target = config["prior"].get("_target_")
    return bool(target) and "encoder" in inspect.signature(find_class(target, "prior", plugins)).parameters


def _refuse_prior_of_encoder(config: Mapping[str, Any], plugins: Sequence[str], objective: Objective) -> None:
    """Raise ConfigError where encoder and model follow different gradients, and the model has the encoder in it."""
    splits = isinstance(objective, FisherObjective | ContrastiveObjective | ChiObjective)
    if splits and _prior_uses_encoder(config, plugins):
        raise ConfigError(
            "prior: is made of the encoder, which this objective trains by a gradient of its own, so that the prior's "
            "would be lost; set prior=standard_normal, or objective=elbo or iwae with sampler=none"
        )


def construct(node: Mapping[str, Any], where: str, plugins: Sequence[str], wired: Mapping[str, Any]) -> object:
    """The object that a node with a `_target_` describes."""
    if node.get("_target_") is None:
        plain_chains = "; objective=none is for `metvae infer`" * (where == "objective")
        raise ConfigError(f"{where}._target_: must name the class to build{plain_chains}")
    given = {key: value for key, value in node.items() if key != "_target_"}
    return call(find_class(node["_target_"], where, plugins), given, where, wired)


def validate(objective: Objective, sampler: Sampler) -> list[str]:
    """Notes on the combination. Raises ConfigError where it is unsound or pointless."""
    try:
        return objective.validate(sampler)
    except ValueError as error:
        whole = str(error).startswith(("objective=", "trainer."))  # not about one of the objective's keys
        raise ConfigError(str(error) if whole else key_name("objective", str(error))) from error


def _check_inference_iterations(settings: TrainerSettings, num_train: int, batch_size: int) -> None:
    total = settings.max_epochs * -(-num_train // batch_size)
    if settings.inference_iterations >= total:
        raise ConfigError(
            f"trainer.inference_iterations={settings.inference_iterations}: the decoder would never be trained in the "
            f"{total} iterations of trainer.max_epochs={settings.max_epochs}; lower the one or raise the other"
        )


class LoadedRun(NamedTuple):
    """A trained model as a run left it. iteration: of the checkpoint."""

    model: VAE
    sampler: Sampler
    objective: Objective
    dataset: Dataset
    device: torch.device
    iteration: int


def load_run(
    folder: Path, checkpoint: str, device: str, plugins: Sequence[str], threads: int | None = None
) -> LoadedRun:
    """Model, sampler and data of a run, from its stored configuration (through the same gate) and a checkpoint.

    Raises:
        ConfigError: not a run, or its checkpoint is damaged or does not fit
    """
    config = stored_config(folder)
    if "run" in config or "target" in config:
        raise ConfigError(f"run={folder}: is no run of `metvae train`; name one of outputs/train")
    if check_config(config, plugins)[1].replicas > 1:
        raise ConfigError(f"run={folder}: holds the runs of several seeds; name one, like seed_{config['seed']}")
    content = load_checkpoint(folder / "checkpoints" / f"{checkpoint}.pt", run_id(folder))
    dataset = cast(DatasetSource, construct(config["dataset"], "dataset", plugins, {})).load()
    known = data_of(folder)
    if known and known["event_shape"] != list(dataset.event_shape):
        raise ConfigError(
            f"run={folder}: was trained on data of shape {tuple(known['event_shape'])}, and those that are there now "
            f"have shape {dataset.event_shape}; put them back"
        )
    if known and known["fingerprint"] != dataset.fingerprint():
        log.warning("note: the data are not those that this run was trained on")
    model, sampler = build_model(config, plugins, dataset.event_shape, dataset)
    try:
        model.load_state_dict(content["model"])
        sampler.load_state_dict(content["sampler"])
        iteration = content["state"]["iteration"]
    except (RuntimeError, KeyError, TypeError):
        raise ConfigError(f"run={folder}: the checkpoint {checkpoint} does not fit the stored configuration") from None
    require_finite(torch.nn.ModuleDict({"model": model, "sampler": sampler}), f"run={folder} checkpoint={checkpoint}")
    objective, place = build_objective(config, plugins, sampler), prepare_device(device, threads, "")
    model, sampler = model.to(place).eval(), sampler.to(place).eval()
    return LoadedRun(model, sampler, objective, dataset.to(place), place, iteration)
