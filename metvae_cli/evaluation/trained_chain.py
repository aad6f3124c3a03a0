"""The chain of a sampler as it was trained, from the encoder's draw z_0 to its end z_K.

A chain that stops where it is rejected (`decisions=stopped`) stands still from there on. After how many moves, is drawn
by the share of that stop in the weight of the chain, which `objective=metvae_stopped` sums over: its end is nearer to
p(z | x) than that of a stop drawn by its probability.
"""

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.objectives.base import Model, Posterior
from metvae_cli.objectives.weights import log_weights, make_path, target_of_moves
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.enumeration import histories_of


def path_as_trained(model: Model, sampler: Sampler, x: Tensor, posterior: Posterior) -> AnnealedPath:
    """The path that the sampler was trained on, from q(z | x) on: its moves may target a copy of the decoder."""
    return make_path(posterior, posterior.log_prob, target_of_moves(model, sampler, x, 1.0), sampler)


@torch.no_grad()
def trained_positions(model: Model, sampler: Sampler, x: Tensor, num_chains: int) -> Tensor:
    """z_0, ..., z_K of S chains for each datum of x (B, *event), (K + 1, S, B, D).

    Draws come from torch's global random stream.
    """
    posterior = model.posterior(x)
    path = path_as_trained(model, sampler, x, posterior)
    start = posterior.rsample((num_chains,))
    if sampler.decisions == "stopped":
        return _until_stopped(model, sampler, x, start, path)
    point = path.evaluate(start, create_graph=False)
    return torch.stack([start, *(later.z for later, _ in sampler.iterate(point, path, create_graph=False))])


def _until_stopped(model: Model, sampler: Sampler, x: Tensor, start: Tensor, path: AnnealedPath) -> Tensor:
    histories = histories_of(sampler, start, path, create_graph=False)
    joint = model.joint(x) if sampler.clones else None
    weights, _ = log_weights(histories.trajectory, "path", sampler, path, joint)
    moves = histories.draw(weights).info.accepted.sum(0)
    visited = histories.trajectory.final.z.unflatten(0, (-1, len(start)))  # where those that stop after k moves end
    steps = torch.arange(len(visited), device=moves.device)[:, None, None]
    return visited.gather(0, torch.minimum(steps, moves)[..., None].expand_as(visited))
