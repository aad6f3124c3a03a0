"""Samplers from words: schedules, shared and separate step sizes, and what is refused."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.kernels.adaptation import Outcome
from metvae_cli.kernels.base import Proposal
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.unadjusted import Unadjusted
from metvae_cli.samplers.assembly import assemble_sampler, make_adaptations, make_schedule, step_sizes
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.schedule import Constant, Linear, Schedule


def leapfrogs(step_sizes: Sequence[StepSize]) -> list[Proposal]:
    return [Hamiltonian(step_size, num_leapfrog=2) for step_size in step_sizes]


assemble = partial(assemble_sampler, latent_dim=4, make_proposals=leapfrogs, num_steps=3)


def test_schedules() -> None:
    assert torch.equal(make_schedule("constant", 3)(), torch.ones(3))
    assert torch.allclose(make_schedule("linear", 3)(), torch.tensor([0.25, 0.5, 0.75]))
    assert make_schedule("linear", 0)().shape == (0,)


def test_kernels_and_cost() -> None:
    adjusted, plain = assemble(acceptance="barker"), assemble(acceptance="none")
    assert all(isinstance(kernel, MetropolisHastings) for kernel in adjusted.steps)
    assert all(isinstance(kernel, Unadjusted) for kernel in plain.steps)
    assert adjusted.is_adjusted
    assert not plain.is_adjusted
    assert adjusted.evaluations == 7
    assert assemble_sampler(4, None, 0).evaluations == 1


@pytest.mark.parametrize(
    ("per_step", "per_dimension", "parameters"),
    [(True, False, 3), (False, False, 1), (True, True, 12), (False, True, 4)],
)
def test_learned_step_sizes(per_step: bool, per_dimension: bool, parameters: int) -> None:
    sampler = assemble(step_size_rule="learned", per_step=per_step, per_dimension=per_dimension)
    assert sum(parameter.numel() for parameter in sampler.parameters()) == parameters
    assert len(step_sizes(sampler)) == 3


@pytest.mark.parametrize(("rule", "adapts"), [("fixed", False), ("learned", False), ("adapted", True)])
def test_only_adapted_step_sizes_are_adapted(rule: Any, adapts: bool) -> None:
    sampler = assemble(step_size_rule=rule)
    adaptations = make_adaptations(sampler, 0.7)
    assert bool(adaptations) is adapts
    for adaptation in adaptations:
        before = [step().item() for step in step_sizes(sampler)]
        rates = torch.stack([torch.full((2, 5), rate) for rate in (0.9, 0.7, 0.5)])
        adaptation.update(Outcome(rates, torch.zeros(2, 5, 4)))
        after = [step().item() for step in step_sizes(sampler)]
        assert after[0] > before[0]
        assert after[1] == pytest.approx(before[1])
        assert after[2] < before[2]
        assert "kernels.0.proposal.step_size.log_value" in sampler.state_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": -1}, "num_steps=-1"),
        ({"step_size": 0.0}, "step_size=0.0"),
        ({"make_proposals": None}, "there is no proposal"),
        ({"per_dimension": True, "step_size_rule": "adapted"}, "per_dimension=true"),
        ({"target_accept": 1.0}, "target_accept=1.0"),
    ],
)
def test_mistakes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assemble(**changes)


class Halved(Linear):
    """A schedule of the user's own."""

    def forward(self) -> Tensor:
        return super().forward() / 2


class Cooler(Constant):
    """Another one."""

    def forward(self) -> Tensor:
        return torch.full((self.num_steps,), 0.5)


@pytest.mark.parametrize("schedule", [Linear(3), Constant(3), Halved(3), Cooler(3)])
def test_a_chain_has_the_temperatures_that_its_schedule_says(schedule: Schedule) -> None:
    betas = [float(beta) for beta in schedule.betas(torch.zeros(1, dtype=torch.float64))]
    assert betas == pytest.approx(schedule().tolist())


def test_a_schedule_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="schedule"):
        Sampler([], make_schedule("linear", 2))
