"""Dual averaging and the adapted scale: where they settle, what is used outside training, and that a state goes on."""

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.adaptation import DualAveraging, Outcome, ScaleAdaptation, VarianceSensitive
from metvae_cli.kernels.base import StepInfo
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.samplers.assembly import AcceptanceName, make_adaptations, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from tests.targets import normal_log_prob


def standard_normal(z: Tensor) -> Tensor:
    return normal_log_prob(z, 0.0, 1.0).sum(-1)


def step(step_size: StepSize, rule: AcceptanceName = "metropolis") -> StepInfo:
    """One step of HMC from exact draws, 100 chains in 5 dimensions."""
    kernel = make_kernel(Hamiltonian(step_size), rule)
    kernel.train(step_size.training)
    path = AnnealedPath(standard_normal, standard_normal, needs_score=True)
    point = path.evaluate(torch.randn(100, 1, 5), create_graph=False)
    with torch.no_grad():
        return kernel.step(point, path, torch.tensor(1.0), create_graph=False)[1]


@pytest.mark.parametrize("rule", ["metropolis", "barker", "none"])
@pytest.mark.parametrize("target", [0.5, 0.8])
@pytest.mark.parametrize("initial", [0.1, 3.0])
def test_dual_averaging_settles_at_its_target(initial: float, target: float, rule: AcceptanceName) -> None:
    step_size = StepSize(initial, "dual_averaging")
    adaptation = DualAveraging([step_size], target)
    for _ in range(400):
        adaptation.update(Outcome(step(step_size, rule).metropolis_prob[None], torch.zeros(2, 1, 5)))
    step_size.eval()
    rates = torch.stack([step(step_size, rule).metropolis_prob.mean() for _ in range(100)])
    assert abs(rates.mean() - target) < 0.03


def test_steps_that_share_a_size_are_adapted_together() -> None:
    """Three chains of one step size: their mean acceptance settles at the target, and so does what is used outside."""
    step_size = StepSize(0.1, "dual_averaging")
    adaptation = DualAveraging([step_size] * 3, 0.7)
    for _ in range(400):
        rates = torch.stack([step(step_size).metropolis_prob for _ in range(3)])
        adaptation.update(Outcome(rates, torch.zeros(2, 1, 5)))
    assert abs(step_size().log() - step_size.log_settled) < 0.5
    step_size.eval()
    rates = torch.stack([step(step_size).metropolis_prob.mean() for _ in range(100)])
    assert abs(rates.mean() - 0.7) < 0.03


def test_outside_training_the_average_is_used_and_does_not_move() -> None:
    step_size = StepSize(0.3, "dual_averaging")
    adaptation = DualAveraging([step_size], 0.8)
    iterates = []
    for _ in range(30):
        adaptation.update(Outcome(step(step_size).metropolis_prob[None], torch.zeros(2, 1, 5)))
        iterates.append(step_size().item())
    step_size.eval()
    settled = step_size().item()
    assert min(iterates) < settled < max(iterates)
    assert settled != iterates[-1]
    step(step_size)
    assert step_size().item() == settled


def test_the_variance_sensitive_rule_is_written_out() -> None:
    """Two dimensions: 0.9 h + 0.1 gamma / (spread + 1), gamma raised by 2 % or lowered by 1 %; and one step size."""
    moments = torch.tensor([[[7.0, 7.0], [3.0, 0.0]]])
    for acceptance, factor in ((0.95, 1.02), (0.5, 0.99)):
        both, one = StepSize(0.01, "variance_sensitive", 2), StepSize(0.01, "variance_sensitive")
        for step_size in (both, one):
            adaptation = VarianceSensitive([step_size], 0.9)
            adaptation.update(Outcome(torch.full((1, 2, 3), acceptance), torch.zeros(2, 3, 2), moments))
            assert torch.allclose(adaptation.gamma, torch.tensor([0.1 * factor]))
        expected = 0.9 * 0.01 + 0.1 * 0.1 * factor / (torch.tensor([3.0, 0.0]) + 1)
        assert torch.allclose(both(), expected)
        assert torch.allclose(one(), torch.tensor(0.009 + 0.01 * factor / (4.5**0.5 + 1)))
        before = both().clone()
        adaptation = VarianceSensitive([both], 0.9)
        adaptation.update(Outcome(torch.full((1, 2, 3), acceptance), torch.zeros(2, 3, 2), moments * torch.nan))
        assert torch.equal(both(), before)


def test_the_variance_sensitive_rule_finds_short_steps_for_steep_dimensions() -> None:
    """Langevin on a normal of scales 0.1 and 1: the step of the first becomes the shorter, and moves are accepted."""
    scales = torch.tensor([0.1, 1.0])
    step_size = StepSize(0.01, "variance_sensitive", 2)
    sampler = Sampler(
        [make_kernel(Langevin(step_size), "metropolis")], make_schedule("constant", 1), latent_dim=2, tracks_spread=True
    )
    path = AnnealedPath(standard_normal, lambda z: normal_log_prob(z, 0.0, scales).sum(-1), needs_score=True)
    (adaptation,) = make_adaptations(sampler, 0.8)
    acceptances = []
    for _ in range(600):
        with torch.no_grad():
            trajectory = sampler(scales * torch.randn(200, 1, 2), path, create_graph=False)
        assert trajectory.score_moments is not None
        assert torch.allclose(trajectory.score_moments[:, 1], 1 / scales, rtol=0.3)
        adaptation.update(Outcome(trajectory.info.metropolis_prob, trajectory.final.z, trajectory.score_moments))
        acceptances.append(trajectory.info.metropolis_prob.mean())
    assert step_size()[1] > 3 * step_size()[0]
    assert abs(torch.stack(acceptances[300:]).mean() - 0.8) < 0.1


def test_an_adaptation_goes_on_from_its_state() -> None:
    """State of kernel and adaptation, as a checkpoint holds them."""
    runs = []
    for interrupted in (False, True):
        torch.manual_seed(5)
        step_size = StepSize(0.3, "dual_averaging")
        adaptation = DualAveraging([step_size], 0.8)
        for iteration in range(20):
            if interrupted and iteration == 11:
                saved = step_size.state_dict(), adaptation.state_dict()
                step_size = StepSize(9.0, "dual_averaging")
                adaptation = DualAveraging([step_size], 0.8)
                step_size.load_state_dict(saved[0])
                adaptation.load_state_dict(saved[1])
            adaptation.update(Outcome(step(step_size).metropolis_prob[None], torch.zeros(2, 1, 5)))
        runs.append(torch.stack([step_size.log_value, step_size.log_settled]))
    assert torch.equal(*runs)


def test_what_is_not_finite_changes_nothing() -> None:
    step_size = StepSize(0.3, "dual_averaging")
    adaptation = DualAveraging([step_size], 0.8)
    adaptation.update(Outcome(torch.full((1, 2, 3), torch.nan), torch.zeros(2, 3, 5)))
    assert step_size().item() == pytest.approx(0.3)
    scale = torch.ones(2)
    ScaleAdaptation(scale).update(Outcome(torch.ones(1, 2, 3), torch.full((2, 3, 2), torch.nan)))
    assert torch.equal(scale, torch.ones(2))


def test_the_scale_becomes_the_spread_within_a_datum() -> None:
    """Not that of the data: their means differ by far more."""
    scale, spread = torch.ones(2), torch.tensor([0.2, 3.0])
    adaptation = ScaleAdaptation(scale)
    for _ in range(1500):
        adaptation.update(Outcome(torch.ones(1, 4, 10), 50 * torch.randn(1, 10, 2) + spread * torch.randn(4, 10, 2)))
    assert torch.allclose(scale, spread, rtol=0.1)
