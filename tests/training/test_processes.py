"""What processes share out and put together again, without starting any."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from metvae_cli.errors import ConfigError, RunError
from metvae_cli.kernels.adaptation import Outcome
from metvae_cli.training.fabric import check_processes
from metvae_cli.training.processes import Share, put_together, share_of, share_out
from metvae_cli.training.ranks import rank_and_size
from metvae_cli.training.settings import TrainerSettings
from metvae_cli.training.whole_batch_draws import WholeBatchDraws

S, B, D = 3, 7, 4


class Numbered:
    """One of several processes, which exchange nothing."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def sum(self, tensors: list[Tensor]) -> list[Tensor]:
        return tensors

    def tell(self, value: object) -> object:
        return value

    def leave(self) -> None: ...


def shares(total: int, size: int) -> list[Share]:
    return [share_of(Numbered(rank, size), total) for rank in range(size)]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("total", "size"), [(100, 1), (100, 2), (7, 3), (3, 3), (37, 4)])
def test_shares_are_all_of_a_batch(total: int, size: int) -> None:
    rows = [row for share in shares(total, size) for row in range(share.first, share.last)]
    assert rows == list(range(total))
    assert sum(share.weight for share in shares(total, size)) == pytest.approx(1)
    assert max(share.last - share.first for share in shares(total, size)) <= -(-total // size)


def test_a_batch_of_fewer_data_than_processes_is_whole_in_each() -> None:
    assert shares(2, 4) == [Share(0, 2, 2, 0.25)] * 4


def posterior(rows: slice) -> list[torch.distributions.Distribution]:
    mean = torch.linspace(-1, 1, B * D).view(B, D)[rows]
    factor = torch.linspace(0.5, 1, B * D * 2).view(B, D, 2)[rows]
    return [
        Independent(Normal(mean, mean.exp()), 1),
        MultivariateNormal(mean, scale_tril=torch.eye(D).expand(len(mean), D, D)),
        LowRankMultivariateNormal(mean, factor, mean.exp()),
    ]


def draws(rows: slice) -> list[Tensor]:
    """Everything that a chain draws, for some rows of a batch."""
    z = torch.zeros(S, B, D)[:, rows]
    return [
        torch.randn_like(z),
        torch.rand_like(z[..., :1]),
        torch.rand_like(z[..., 0]),
        z.new_empty(z.shape).normal_(),
        z.new_empty(z.shape).exponential_(2.0),
        torch.randn(*z.shape),
        torch.rand(z.shape, dtype=torch.float64),
        *(distribution.rsample(torch.Size((S,))) for distribution in posterior(rows)),
    ]


@pytest.mark.parametrize(("first", "last"), [(0, 3), (3, 7), (0, 1)])
def test_a_share_draws_the_numbers_of_its_rows(first: int, last: int) -> None:
    torch.manual_seed(1)
    whole = draws(slice(None))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    with WholeBatchDraws(first, last, B):
        own = draws(slice(first, last))
    for expected, found in zip(whole, own, strict=True):
        assert torch.allclose(expected[:, first:last], found, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state), "the streams of the processes would part"
    torch.manual_seed(1)
    assert not torch.allclose(draws(slice(first, last))[0], own[0]), "this test could not fail"


def test_what_has_no_batch_is_the_same_in_every_process() -> None:
    torch.manual_seed(1)
    expected = torch.randn(D)
    torch.manual_seed(1)
    with WholeBatchDraws(0, 3, B):
        assert torch.equal(torch.zeros(D).normal_(), expected)


@pytest.mark.parametrize(
    "draw",
    [
        lambda p: torch.bernoulli(p),
        lambda p: torch.normal(p, p),
        lambda p: torch.multinomial(p, 1),
        lambda p: torch.nn.functional.dropout(p),
        lambda p: p.bernoulli_(),
        lambda p: torch.poisson(p),
        lambda p: torch.distributions.Gamma(p, p).rsample(),
        lambda p: torch.randint(2, p.shape),
        lambda p: torch.randn(3, 5),
        lambda p: torch.rand(size=(3, 5)),
        lambda p: torch.rand_like(input=p.T.contiguous()),
    ],
)
def test_draws_that_cannot_be_shared_are_refused(draw) -> None:
    with WholeBatchDraws(0, 3, B), pytest.raises(RunError, match=r"several processes|no samples before the batch"):
        draw(torch.full((S + 1, 3), 0.5))


def test_dropout_that_does_nothing_is_none() -> None:
    with WholeBatchDraws(0, 3, B):
        torch.nn.functional.dropout(torch.ones(S, 3), training=False)


@pytest.mark.parametrize(("total", "size"), [(B, 2), (B, 3), (2, 3)])
def test_outcomes_of_shares_put_together_are_that_of_the_batch(total: int, size: int) -> None:
    prob, z, scores, credit = (
        torch.rand(2, S, total),
        torch.randn(S, total, D),
        3 + torch.randn(2, S, total, D),
        torch.randn(2, S, total),
    )

    def outcome(rows: slice) -> Outcome:
        own = scores[:, :, rows]
        moments = torch.stack([own.mean((1, 2)), own.std((1, 2), unbiased=False)], 1)
        return Outcome(prob[:, :, rows], z[:, rows], moments, credit[:, :, rows].mean((1, 2)))

    whole = outcome(slice(None))
    parts = [share_out(outcome(slice(share.first, share.last)), share) for share in shares(total, size)]
    summed = [torch.stack(column).sum(0) for column in zip(*parts, strict=True)]
    found = put_together(summed, whole)
    for name, expected, value in zip(whole._fields, whole, found, strict=True):
        assert expected is not None
        assert value is not None
        assert torch.allclose(expected, value, atol=1e-5), name
    bare = Outcome(prob, z)
    assert put_together(share_out(bare, Share(0, total, total, 1.0)), bare)[2:] == (None, None)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, (0, 1)),  # left over in a shell
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # the batch script, before srun
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, (0, 1)),
    ],
)
def test_who_started_a_process(environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert rank_and_size(environment) == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (TrainerSettings(devices=2, num_nodes=2), ("trainer.num_nodes=2", "torchrun", "srun")),
        (TrainerSettings(devices=2, device="cuda:1"), ("trainer.device=cuda:1", "auto, cpu or cuda")),
        (TrainerSettings(devices=2, device="mps"), ("trainer.device=mps", "auto, cpu or cuda")),
        (TrainerSettings(devices=64, device="cuda"), ("trainer.devices=64", "CUDA devices")),
    ],
)
def test_devices_that_cannot_be_had_are_refused(settings: TrainerSettings, words: tuple[str, ...]) -> None:
    pytest.importorskip("lightning_fabric")
    with pytest.raises(ConfigError) as refusal:
        check_processes(settings)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_processes_that_were_started_must_be_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="2 processes were started"):
        check_processes(TrainerSettings())


@pytest.mark.parametrize(
    ("variables", "devices", "words"),
    [
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
            2,
            "--nproc-per-node=2",
        ),
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
            1,
            "--nproc-per-node=1",
        ),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, 2, "--ntasks-per-node=2"),
    ],
)
def test_launchers_that_start_something_else_are_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], devices: int, words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    nodes = 2 if devices == 1 else 1
    with pytest.raises(ConfigError, match=words):
        check_processes(TrainerSettings(devices=devices, num_nodes=nodes))


def test_without_fabric_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ConfigError, match=r"pip install 'metvae\[dist\]'"):
        check_processes(TrainerSettings(devices=2))
    check_processes(TrainerSettings())


def test_one_process_needs_no_fabric() -> None:
    """It is imported where several are asked for, and nowhere else."""
    package = Path(__file__).parents[2] / "metvae_cli"
    importing = [path.name for path in package.rglob("*.py") if "lightning_fabric" in path.read_text()]
    assert importing == ["fabric.py"]
    lines = (package / "training" / "fabric.py").read_text().splitlines()
    assert not [line for line in lines if line.startswith(("import lightning_fabric", "from lightning_fabric"))]
