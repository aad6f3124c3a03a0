"""Flow proposals as bijections, the law of their direction, and what their steps share."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from metvae_cli.bijections import Bijection, TransformName
from metvae_cli.densities import AnnealedPath, Frame, Point
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.base import Proposed
from metvae_cli.kernels.flow import Coin, Flow, FlowProposals
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize
from tests.kernels.cases import stir
from tests.targets import normal_log_prob

pytestmark = pytest.mark.usefixtures("double")

DIM, CONTEXT, STEPS = 3, 4, 3
ONE = torch.tensor(1.0)
TRANSFORMS: tuple[TransformName, ...] = get_args(TransformName)
EXACT = 1e-9


def standard_normal(z: Tensor) -> Tensor:
    return normal_log_prob(z, 0.0, 1.0).sum(-1)


def make_path(batch: int = 2) -> AnnealedPath:
    """A path with a frame and a context that differ from datum to datum."""
    location = torch.linspace(-1, 1, batch * DIM).view(batch, DIM)
    context = torch.linspace(-2, 2, batch * CONTEXT).view(batch, CONTEXT)
    frame = Frame(location, 1.0 + location.square())
    return AnnealedPath(standard_normal, standard_normal, needs_score=False, frame=frame, context=context)


def make_flows(num_steps: int = STEPS, **options: Any) -> list[Flow]:
    family = FlowProposals(DIM, CONTEXT, num_steps, **{"hidden": (8,), **options})
    flows = [flow for flow in family.proposals([StepSize(1.0)] * num_steps) if isinstance(flow, Flow)]
    assert len(flows) == num_steps
    return flows


def propose(flow: Flow, z: Tensor, direction: float | None = None, seed: int = 5) -> Proposed:
    """A proposal from z (S, B, D) with imposed noise, and of a lifted flow with an imposed direction."""
    path = make_path(z.shape[1])
    point = path.evaluate(z, create_graph=True)
    if direction is not None:
        point = point._replace(momentum=torch.full_like(z[..., :1], direction))
    torch.manual_seed(seed)
    return flow.propose(point, path, ONE, create_graph=True)


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("condition_on_x", [False, True])
@pytest.mark.parametrize("noise", ["none", "frozen", "fresh"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_is_a_bijection_with_the_jacobian_it_reports(
    transform: TransformName, noise: str, condition_on_x: bool, direction: float
) -> None:
    flow = make_flows(transform=transform, noise=noise, condition_on_x=condition_on_x, direction="lifted")[1]
    stir(flow)
    z = torch.randn(2, 2, DIM)
    there = propose(flow, z, direction)
    back = propose(flow, there.point.z, -direction)
    assert (there.point.z - z).abs().max() > 0.1
    assert (back.point.z - z).abs().max() < EXACT
    assert (back.log_correction + there.log_correction).abs().max() < EXACT
    jacobian = torch.autograd.functional.jacobian(lambda at: propose(flow, at, direction).point.z, z)
    assert isinstance(jacobian, Tensor)
    rows = jacobian.reshape(4, DIM, 4, DIM).movedim(2, 1)  # from each row to each row, (4, 4, D, D)
    log_det = torch.linalg.slogdet(torch.stack([rows[i, i] for i in range(4)]))[1]
    assert (log_det.view(2, 2) - there.log_correction).abs().max() < EXACT
    assert all((rows[i, j] == 0).all() for i in range(4) for j in range(4) if i != j)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_one_latent_dimension(transform: TransformName) -> None:
    bijection = Bijection(1, 0, transform, layers=2, hidden=(8,))
    stir(bijection)
    w = torch.randn(50, 1, 1)
    there, log_det = bijection(w)
    back, log_det_back = bijection.inverse(there)
    assert (back - w).abs().max() < EXACT
    assert (log_det + log_det_back).abs().max() < EXACT


@pytest.mark.parametrize("noise", ["none", "frozen", "fresh"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_parameter_gets_a_gradient(transform: TransformName, noise: str) -> None:
    flows = nn.ModuleList(make_flows(transform=transform, noise=noise, condition_on_x=True, learn_coin=True))
    for flow in flows:
        assert isinstance(flow, Flow)
        proposed = propose(flow, torch.randn(100, 3, DIM))
        assert proposed.log_choice is not None
        (proposed.point.log_final + proposed.log_correction + proposed.log_choice).sum().backward()
    for name, parameter in flows.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_a_row_that_overflows_in_the_other_direction_leaves_the_gradient_finite() -> None:
    bijection = Bijection(2, 0, "affine", layers=1, hidden=())
    stir(bijection)
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter += 100.0  # T multiplies by several hundreds
    w = torch.tensor([1.0, 1e306])[:, None, None].expand(2, 1, 2)
    moved, log_det = bijection.directed(w, torch.tensor([1.0, -1.0])[:, None, None])
    assert not torch.isfinite(bijection(w)[0]).all()
    (moved.sum() + log_det.sum()).backward()
    assert torch.isfinite(moved).all()
    assert all(
        torch.isfinite(parameter.grad).all() for parameter in bijection.parameters() if parameter.grad is not None
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_begins_near_the_identity(transform: TransformName) -> None:
    """Barker accepts the first proposals about half the time."""
    kernel = MetropolisHastings(FlowProposals(8, 0, 1, transform).proposals([StepSize(1.0)])[0], Acceptance.BARKER)
    path = AnnealedPath(standard_normal, standard_normal, needs_score=False)
    with torch.no_grad():
        _, info = kernel.step(path.evaluate(torch.randn(2000, 1, 8), create_graph=False), path, ONE, create_graph=False)
    assert 0.45 < info.accept_prob.mean() < 0.51
    assert info.accept_prob.std() > 0.005  # near it, not on it


def parameters_of(flows: Sequence[Flow]) -> int:
    return sum(parameter.numel() for parameter in nn.ModuleList(flows).parameters())


@pytest.mark.parametrize(("noise", "growth"), [("none", 4), ("frozen", 1), ("fresh", 1)])
def test_noise_decides_whether_a_flow_is_shared(noise: str, growth: int) -> None:
    one, four = make_flows(1, noise=noise, learn_coin=True), make_flows(4, noise=noise, learn_coin=True)
    assert parameters_of(four) == growth * parameters_of(one)


def test_frozen_noise_differs_between_steps_stays_and_is_stored() -> None:
    flows = make_flows(noise="frozen", direction="lifted")
    stir(flows[0])
    z = torch.randn(4, 2, DIM)
    moves = [propose(flow, z, 1.0).point.z for flow in flows]
    assert torch.equal(moves[0], propose(flows[0], z, 1.0, seed=6).point.z)
    assert not torch.allclose(moves[0], moves[1])
    state = nn.ModuleList(flows).state_dict()
    assert [name for name in state if name.endswith("noise")] == [f"{step}.noise" for step in range(STEPS)]
    others = make_flows(noise="frozen", direction="lifted")
    assert not torch.allclose(propose(others[0], z, 1.0).point.z, moves[0])
    nn.ModuleList(others).load_state_dict(state)
    for flow, move in zip(others, moves, strict=True):
        assert torch.equal(propose(flow, z, 1.0).point.z, move)


def test_fresh_noise_differs_between_calls_and_is_shared_by_the_batch() -> None:
    flow = make_flows(noise="fresh", direction="lifted")[0]
    stir(flow)
    z = torch.randn(1, 1, DIM).expand(4, 1, DIM)
    one, other = propose(flow, z, 1.0, seed=5).point.z, propose(flow, z, 1.0, seed=6).point.z
    assert not torch.allclose(one, other)
    assert torch.allclose(one, one[:1].expand_as(one), rtol=0, atol=1e-14)


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_the_coin_falls_with_its_probability(probability: float) -> None:
    coin, z = Coin(probability), torch.zeros(100_000, 1, DIM)
    direction = coin.draw(z)
    assert direction.shape == (100_000, 1, 1)
    assert set(direction.unique().tolist()) == {-1.0, 1.0}
    error = 5 * math.sqrt(probability * (1 - probability) / len(z))
    assert abs((direction > 0).double().mean() - probability) < error
    ahead = torch.ones(1, 1, 1)
    assert torch.allclose(coin.log_prob(ahead).exp(), torch.tensor(probability))
    assert torch.allclose(coin.log_prob(ahead).exp() + coin.log_prob(-ahead).exp(), torch.tensor(1.0))
    assert torch.allclose(coin.log_way_back(ahead), coin.log_prob(-ahead) - coin.log_prob(ahead))


@pytest.mark.parametrize("learned", [False, True])
def test_the_coin_is_paid_for_and_told_only_if_learned(learned: bool) -> None:
    flow = make_flows(1, coin_probability=0.8, learn_coin=learned)[0]
    stir(flow.bijection)
    z = torch.randn(200, 2, DIM)
    proposed = propose(flow, z)
    lifted = Flow(flow.bijection, None)
    ahead, back = propose(lifted, z, 1.0), propose(lifted, z, -1.0)
    forwards = (proposed.point.z == ahead.point.z).all(-1)
    assert 0.7 < forwards.double().mean() < 0.9
    assert torch.equal(proposed.point.z, torch.where(forwards[..., None], ahead.point.z, back.point.z))
    odds = math.log(0.8 / 0.2)
    expected = torch.where(forwards, ahead.log_correction - odds, back.log_correction + odds)
    assert torch.allclose(proposed.log_correction, expected)
    assert flow.draws_choice == learned
    assert (proposed.log_choice is not None) == learned
    if proposed.log_choice is not None:
        assert torch.allclose(proposed.log_choice.exp(), torch.where(forwards, 0.8, 0.2).double())


def test_a_lifted_flow_starts_fair_goes_on_and_turns_where_it_is_rejected() -> None:
    flow = make_flows(1, direction="lifted")[0]
    stir(flow)
    path = make_path(1)
    start, log_refresh, _ = flow.refresh(path.evaluate(torch.randn(100_000, 1, DIM), create_graph=False))
    assert log_refresh is None
    assert start.momentum is not None
    assert start.momentum.mean().abs() < 5 / math.sqrt(100_000)
    assert flow.refresh(start)[0] is start
    with torch.no_grad():
        after, info = MetropolisHastings(flow, Acceptance.BARKER).step(start, path, ONE, create_graph=False)
    assert after.momentum is not None
    turned = (after.momentum != start.momentum)[..., 0]
    assert torch.equal(turned, ~info.accepted)
    assert 0.05 < info.accepted.double().mean() < 0.95


def test_a_coin_leaves_the_point_alone() -> None:
    flow, point = make_flows(1)[0], Point(torch.zeros(1, 1, DIM), torch.zeros(1, 1), torch.zeros(1, 1))
    assert flow.refresh(point)[0] is point
    assert flow.rejected(point) is point


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"layers": 0}, "layers=0"),
    ({"hidden": (8, 0)}, "hidden="),
    ({"coin_probability": 0.0}, "coin_probability=0.0"),
    ({"coin_probability": 1.0}, "coin_probability=1.0"),
    ({"coin_probability": math.nan}, "coin_probability=nan"),
    ({"coin_probability": 0.8, "direction": "lifted"}, "coin_probability=0.8"),
    ({"learn_coin": True, "direction": "lifted"}, "learn_coin=true"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_flows(**options)


def test_what_a_path_does_not_say_is_asked_for() -> None:
    path = AnnealedPath(standard_normal, standard_normal, needs_score=False)
    point = path.evaluate(torch.zeros(1, 1, DIM), create_graph=False)
    asks = [
        (make_flows(1, condition_on_x=True)[0], "condition_on_x=true"),
        (make_flows(1, direction="lifted")[0], "refresh"),
    ]
    for proposal, message in asks:
        with pytest.raises(ValueError, match=message):
            proposal.propose(point, path, ONE, create_graph=False)
    with pytest.raises(ValueError, match="num_steps=2"):
        FlowProposals(DIM, CONTEXT, 2).proposals([StepSize(1.0)])
