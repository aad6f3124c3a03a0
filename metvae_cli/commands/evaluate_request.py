"""What the keys of `configs/evaluate.yaml` ask for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from metvae_cli.data.base import require_at_least
from metvae_cli.errors import ConfigError
from metvae_cli.evaluation.annealing import AnnealingSettings
from metvae_cli.evaluation.frozen import Precision
from metvae_cli.schema import call
from metvae_cli.training.device import DeviceName

SplitName = Literal["test", "valid", "train"]
ProposalName = Literal["auto", "encoder", "overdispersed", "retrained", "chain"]
EstimatorName = Literal["importance", "ais", "bdmc", "exact"]
DiagnosticName = Literal["sampler", "latent"]

# What is held in memory at once, for each number of the request.
_MOST_SAMPLES = 10_000_000
_MOST_AT_ONCE = 100_000
_MOST_CHAINS = 1000
_MOST_POINTS = 1_000_000


def _require_at_most(largest: int, **values: int) -> None:
    """Raise ValueError for the first value that is above what fits into memory."""
    for name, value in values.items():
        if value > largest:
            raise ValueError(f"{name}={value}: must be at most {largest}, which fits into memory")


class Importance:
    """Importance sampling.

    Args:
        num_samples: S
        proposal: what z is drawn from; `auto` is the chain where that is a plain flow, and else the encoder
        widen: of an overdispersed encoder
        retrain_epochs, retrain_lr: of a retrained encoder
        repeats: with other random numbers
        chunk: latent vectors decoded at a time

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self,
        num_samples: int = 5000,
        proposal: ProposalName = "auto",
        widen: float = 1.2,
        retrain_epochs: int = 10,
        retrain_lr: float = 1e-3,
        repeats: int = 3,
        chunk: int = 2048,
    ) -> None:
        require_at_least(1, num_samples=num_samples, retrain_epochs=retrain_epochs, repeats=repeats, chunk=chunk)
        _require_at_most(_MOST_SAMPLES, num_samples=num_samples)
        _require_at_most(_MOST_AT_ONCE, chunk=chunk)
        for name, value in (("widen", widen), ("retrain_lr", retrain_lr)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}={value}: must be positive and finite")
        self.num_samples, self.repeats, self.chunk = num_samples, repeats, chunk
        self.proposal: ProposalName = proposal
        self.widen, self.retrain_epochs, self.retrain_lr = widen, retrain_epochs, retrain_lr


class Exact:
    """The exact likelihood, of at most `data` data; points: of the grid, per coordinate."""

    def __init__(self, data: int | None = 200, points: int = 501) -> None:
        require_at_least(1, **({} if data is None else {"data": data}))
        require_at_least(11, points=points)
        _require_at_most(_MOST_POINTS, points=points)
        self.data, self.points = data, points


class SamplerChecks:
    """Diagnostics of the sampler.

    Args:
        data: with long chains
        num_chains: per datum
        num_draws: of each
        reference_data: with a reference chain
        reference_draws: per datum
        largest_r_hat: above it a datum has not converged
    """

    def __init__(
        self,
        data: int = 50,
        num_chains: int = 8,
        num_draws: int = 200,
        reference_data: int = 6,
        reference_draws: int = 8000,
        largest_r_hat: float = 1.1,
    ) -> None:
        require_at_least(1, data=data, reference_data=reference_data)
        require_at_least(2, num_chains=num_chains)
        require_at_least(8, num_draws=num_draws)
        require_at_least(200, reference_draws=reference_draws)
        _require_at_most(_MOST_CHAINS, num_chains=num_chains)
        if not largest_r_hat > 1:
            raise ValueError(f"largest_r_hat={largest_r_hat}: must be above 1")
        self.data, self.num_chains, self.num_draws = data, num_chains, num_draws
        self.reference_data, self.reference_draws, self.largest_r_hat = reference_data, reference_draws, largest_r_hat


class LatentChecks:
    """Quality of the latent space, on at most `data` data; probe_data: training data for the linear rule."""

    def __init__(self, data: int = 2000, probe_data: int = 5000) -> None:
        require_at_least(10, data=data, probe_data=probe_data)
        self.data, self.probe_data = data, probe_data


class General:
    """The keys at the top.

    Raises:
        ValueError: a value is out of range
    """

    def __init__(
        self,
        run: str | None,
        checkpoint: Literal["best", "last"] = "best",
        split: SplitName = "test",
        data: int | None = None,
        estimators: Sequence[EstimatorName] = ("importance", "ais", "bdmc", "exact"),
        diagnostics: Sequence[DiagnosticName] = ("sampler", "latent"),
        precision: Precision = "double",
        seed: int = 0,
        device: DeviceName = "auto",
        threads: int | None = None,
        plugins: Sequence[str] = (),
    ) -> None:
        if not run:
            raise ValueError("run=null: name the directory of a run, like run=outputs/train/RUN")
        if data is not None:
            require_at_least(1, data=data)
        if threads is not None:
            require_at_least(1, threads=threads)
        if not estimators and not diagnostics:
            raise ValueError("estimators=[]: there is nothing to do; name some, or diagnostics=[sampler,latent]")
        require_at_least(0, seed=seed)
        self.run, self.checkpoint, self.data, self.seed = Path(run), checkpoint, data, seed
        self.split: SplitName = split
        self.estimators, self.diagnostics = tuple(dict.fromkeys(estimators)), tuple(dict.fromkeys(diagnostics))
        self.precision: Precision = precision
        self.device, self.threads, self.plugins = device, threads, plugins


class Request(NamedTuple):
    """All keys."""

    general: General
    importance: Importance
    ais: AnnealingSettings
    bdmc: AnnealingSettings
    exact: Exact
    sampler: SamplerChecks
    latent: LatentChecks

    @property
    def run(self) -> Path:
        """Directory of the run."""
        return self.general.run

    @property
    def checkpoint(self) -> str:
        """Which of its checkpoints."""
        return self.general.checkpoint

    @property
    def device(self) -> str:
        """Where to compute."""
        return self.general.device


def read_request(config: Mapping[str, Any]) -> Request:
    """The request of a resolved configuration. Raises ConfigError."""
    nodes = {
        "importance": Importance,
        "ais": AnnealingSettings,
        "bdmc": AnnealingSettings,
        "exact": Exact,
        "sampler": SamplerChecks,
        "latent": LatentChecks,
    }
    general = call(General, {key: value for key, value in config.items() if key not in nodes}, "")
    parts: dict[str, Any] = {name: call(found, config[name], name) for name, found in nodes.items()}
    if parts["bdmc"].data is None:
        raise ConfigError(
            "bdmc.data=null: must say how many data to simulate, of which there is no end; set bdmc.data=50"
        )
    return Request(general, **parts)
