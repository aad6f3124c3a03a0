"""From the configuration of `metvae infer` to objects: a target and q_0 in the places of data, decoder and encoder.

What is wired: `latent_dim`, the target's `dim`, into q_0 and the sampler. Everything else is as in `build.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch

from metvae_cli.build import build_objective, build_sampler, check_shape, construct, validate
from metvae_cli.data.base import require_at_least
from metvae_cli.data.blank import blank_dataset
from metvae_cli.errors import ConfigError
from metvae_cli.evaluation.inference import EvaluationSettings
from metvae_cli.evaluation.long_chains import can_run_long
from metvae_cli.gate import check_targets, find_class, import_plugins
from metvae_cli.kernels.adaptation import Adaptation
from metvae_cli.models.inference import Inference, Initial
from metvae_cli.objectives.base import Objective
from metvae_cli.samplers.assembly import make_adaptations
from metvae_cli.samplers.chain import Sampler
from metvae_cli.schema import SweepKeys, call, check_seed, shown
from metvae_cli.targets.base import Target
from metvae_cli.targets.python import PythonDensity
from metvae_cli.training.device import prepare_device, seed_everything, set_threads
from metvae_cli.training.optimizer import make_optimizer
from metvae_cli.training.settings import TrainerSettings
from metvae_cli.training.state import Learner

SPINE_KEYS = ("seed", "batch_size", "epoch_iterations", "methods", "plugins", "resume", "sweep")
_MOST_ROWS = 100_000_000
GROUPS = ("target", "initial", "sampler", "objective", "optimizer", "trainer")


@dataclass(frozen=True)
class InferenceSpine:
    """The keys at the top of a configuration.

    Args:
        seed: of all that is drawn
        batch_size: B, repetitions of q_0 and its chains per iteration, each of objective.num_samples chains
        epoch_iterations: iterations between validations, and between changes of the learning rate
        methods: experiments to run one after another and to show side by side; empty for a single run
        plugins: the user's modules whose public classes may stand in `_target_`
        resume: directory of a run to go on with, or null
        sweep: what is said about a whole sweep: `SweepKeys`

    Raises:
        ValueError: a number is out of range
    """

    seed: int
    batch_size: int = 32
    epoch_iterations: int = 100
    methods: Sequence[str] = ()
    plugins: Sequence[str] = ()
    resume: str | None = None
    sweep: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.resume is not None:
            raise ValueError(f"resume={self.resume}: belongs on the command line as it is, resume=DIR, not into a file")
        check_seed(self.seed)
        call(SweepKeys, self.sweep, "sweep")
        require_at_least(1, batch_size=self.batch_size, epoch_iterations=self.epoch_iterations)
        if (rows := self.batch_size * self.epoch_iterations) > _MOST_ROWS:
            raise ValueError(
                f"batch_size={self.batch_size}, epoch_iterations={self.epoch_iterations}: an epoch of {rows} rows does "
                f"not fit into memory; at most {_MOST_ROWS}"
            )


class InferenceRun(NamedTuple):
    """What a configuration describes. notes: things about it worth telling the user.

    learner: None where nothing is trained (objective=none)
    target_accept: for what adapts the sampler in the warm-up of long chains
    """

    target: Target
    model: Inference
    sampler: Sampler
    learner: Learner[Inference] | None
    target_accept: float
    settings: TrainerSettings
    evaluation: EvaluationSettings
    spine: InferenceSpine
    device: torch.device
    notes: list[str]


def build_inference(config: Mapping[str, Any], plugins: Sequence[str], typed: Sequence[str]) -> InferenceRun:
    """Everything that a run needs, on its device, with the random streams set to the seed.

    Args:
        config: resolved plain configuration
        plugins: modules that the user named on the command line
        typed: what stands behind `target.path=` on the command line

    Raises:
        ConfigError: anything that cannot be done, before anything is written
    """
    spine, settings, evaluation = check_inference_config(config, plugins)
    if settings.devices * settings.num_nodes > 1:
        key = "devices" if settings.devices > 1 else "num_nodes"
        raise ConfigError(f"trainer.{key}={getattr(settings, key)}: a density has no batch to share out; set it to 1")
    if settings.replicas > 1:
        raise ConfigError(
            f"trainer.replicas={settings.replicas}: is for `metvae train`; set it to 1, or say -m seed=0,1"
        )
    device = prepare_device(settings.device, settings.threads, "trainer.")
    target = build_target(config, plugins, typed)
    seed_everything(spine.seed)
    shared = {**config, "latent_dim": target.dim}
    wired = {"latent_dim": target.dim}
    model = Inference(cast(Initial, construct(config["initial"], "initial", plugins, wired)), target.log_prob)
    if config["objective"].get("_target_") is None and config["sampler"].get("_target_") is None:
        raise ConfigError("sampler=none: plain MCMC needs a chain; set sampler=random_walk, langevin or hmc")
    sampler = build_sampler(shared, plugins)
    if sampler.clones:
        raise ConfigError("sampler.cloned_decoder=true: there is no decoder to copy here; set it to false")
    model.to(device)
    sampler.to(device).checkpoints = settings.checkpoint_chain
    target_accept = config["sampler"].get("target_accept", 0.65)
    if config["objective"].get("_target_") is None:
        notes, learner = check_plain(config, sampler), None
        set_threads(settings.threads, 0)
    else:
        objective = build_objective(config, plugins, sampler)
        notes = validate(objective, sampler)
        check_mass(model)
        every = [*make_adaptations(sampler, target_accept), *(part.to(device) for part in objective.adaptations)]
        learner = make_learner(config, model, sampler, objective, every, spine, settings, device)
    return InferenceRun(target, model, sampler, learner, target_accept, settings, evaluation, spine, device, notes)


def check_inference_config(
    config: Mapping[str, Any], plugins: Sequence[str]
) -> tuple[InferenceSpine, TrainerSettings, EvaluationSettings]:
    """What can be said without building: the gate, the spine and the settings."""
    check_shape(config, SPINE_KEYS, (*GROUPS, "evaluation"))
    spine = call(InferenceSpine, {key: config[key] for key in SPINE_KEYS if key in config}, "")
    import_plugins(spine.plugins, plugins)
    check_targets(config, plugins)
    settings = call(TrainerSettings, config["trainer"], "trainer")
    for key in ("kl_warmup_epochs", "inference_iterations", "test_samples", "test_data", "precision"):
        if getattr(settings, key) != getattr(TrainerSettings(), key):
            raise ConfigError(
                f"trainer.{key}={shown(getattr(settings, key))}: is of `metvae train`, and here are no decoder and no "
                f"data; set trainer.{key}={shown(getattr(TrainerSettings(), key))}"
            )
    return spine, settings, call(EvaluationSettings, config["evaluation"], "evaluation")


def build_target(config: Mapping[str, Any], plugins: Sequence[str], typed: Sequence[str]) -> Target:
    """The target. A file of the user's is run only if the command line of this very job names it."""
    node = config["target"]
    found = find_class(node.get("_target_"), "target", plugins)
    path = node.get("path")
    if issubclass(found, PythonDensity) and path is not None and path not in typed:
        raise ConfigError(
            f"target.path={path}: stands in a file; Python code of yours is run only if named on the command line: "
            f"add target.path={path} to it"
        )
    target = construct(node, "target", plugins, {})
    if not isinstance(target, Target):
        raise ConfigError(f"target._target_={node['_target_']}: is no target; `metvae configs list target` shows some")
    return target


def make_learner(
    config: Mapping[str, Any],
    model: Inference,
    sampler: Sampler,
    objective: Objective,
    adaptations: Sequence[Adaptation],
    spine: InferenceSpine,
    settings: TrainerSettings,
    device: torch.device,
) -> Learner[Inference]:
    """All that training changes or reads, with blank rows for data."""
    parameters = [*model.parameters(), *sampler.parameters()]
    if not parameters:
        raise ConfigError(
            "initial.learned=false: nothing would be learned, neither q_0 nor anything of the sampler; set "
            "initial.learned=true, or sampler.step_size_rule=learned, or objective=none for a plain chain"
        )
    set_threads(settings.threads, sum(parameter.numel() for parameter in parameters))
    wired = {"parameters": parameters, "max_epochs": settings.max_epochs}
    optimizer, scheduler = call(make_optimizer, config["optimizer"], "optimizer", wired)
    dataset = blank_dataset(spine.batch_size * spine.epoch_iterations, max(10 * spine.batch_size, 200))
    return Learner(
        model, sampler, objective, dataset.to(device), spine.batch_size, optimizer, scheduler, list(adaptations)
    )


@torch.no_grad()
def check_mass(model: Inference) -> None:
    """Raise ConfigError where q_0 draws what the target says has no mass: log p is -inf there, and so is the bound."""
    with torch.random.fork_rng():
        blank = model.blank(1)
        log_density = model.joint(blank)(model.posterior(blank).sample((1000,)))
    lost = (~torch.isfinite(log_density)).double().mean().item()
    if lost > 0:
        raise ConfigError(
            f"target: log_prob is not finite at {100 * lost:.1f} % of the draws of q_0, so that there is no bound; "
            "set initial.mean and initial.scale to lie inside, or objective=none sampler=hmc for a plain chain"
        )


def check_plain(config: Mapping[str, Any], sampler: Sampler) -> list[str]:
    """Notes on a chain without training. Raises ConfigError where there is none that can go on and on."""
    if sampler.num_steps == 0:
        raise ConfigError("sampler.num_steps=0: plain MCMC needs a chain; set it to 1 or more")
    if not can_run_long(sampler):
        raise ConfigError(
            "objective=none: these moves leave no density as it is, however small their steps, so that no long chain "
            "can be made of them; set sampler=hmc, or objective=annealed"
        )
    notes = []
    if not sampler.is_adjusted:
        notes.append("sampler.acceptance=none: the chain has another limit than the target, nearer for shorter steps")
    trained = [name for name, parameter in sampler.named_parameters() if "log_value" not in name]
    if any("bijection" in name for name in trained):
        notes.append("objective=none: flows are used as they were drawn, untrained; objective=metvae trains them")
    if config["sampler"].get("step_size_rule") == "learned":
        notes.append(
            "sampler.step_size_rule=learned: there is no bound to learn through, so that step sizes stay as they are; "
            "dual_averaging moves them to sampler.target_accept"
        )
    return notes
