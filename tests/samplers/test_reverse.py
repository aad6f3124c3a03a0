"""The learned guess of the decisions, where it is told to leave what it is told of alone."""

import pytest
import torch

from metvae_cli.samplers.reverse import Learned, LearnedStops


@pytest.mark.parametrize("kind", [Learned, LearnedStops])
def test_a_detached_guess_learns_and_passes_nothing_on(kind: type[Learned]) -> None:
    accepted = torch.tensor([[[True, False]], [[True, False]], [[False, False]]])  # (K, S, B)
    z, context = torch.randn(1, 2, 2, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    for detach in (True, False):
        guess = kind(2, 4, 3, (8,), detach=detach)
        said = guess.log_decisions(accepted, z, context).sum()
        passed = torch.autograd.grad(said, [z, context], allow_unused=True, retain_graph=True)
        assert [gradient is None for gradient in passed] == [detach, detach]
        assert all((gradient != 0).any() for gradient in torch.autograd.grad(said, [*guess.net.parameters()]))
