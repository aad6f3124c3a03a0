"""The floor of each method: the least work that its iteration can consist of, in plain torch.

| kind        | what                                                                                               |
| chain       | 1 + K L value-and-gradients of the decoder in z at batch S x B, all differentiated again           |
| flow        | K + 1 values of the decoder, and each flow once, forward and backward                              |
| first_order | 1 + K L value-and-gradients in z; one value more, with what trains the decoder at the chain's end  |
| plain       | one value, forward and backward                                                                    |

Each with the encoder forward and backward and the optimizer's step, eager, as one program: positions follow the scores
(or the flow), since a gradient that is differentiated again is so in z too. Nothing else is in it: no prior, no log q,
no noise after z_0, no acceptance, no weights, no metrics, no clipping. Network, likelihood and optimizer are the
model's own.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.contenders import Contender, Run
from metvae_cli.models.vae import VAE

STEP = 1e-3


def log_likelihood(model: VAE, z: Tensor, x: Tensor) -> Tensor:
    """log p(x | z), (S, B)."""
    return model.likelihood.log_prob(model.decoder(z), x)


def value_and_gradient(model: VAE, z: Tensor, x: Tensor, *, again: bool) -> tuple[Tensor, Tensor]:
    """log p(x | z), (S, B), and its gradient in z, (S, B, D), which can be differentiated `again`."""
    value = log_likelihood(model, z, x)
    (gradient,) = torch.autograd.grad(value.sum(), z, create_graph=again)
    return value, gradient


def plain_backward(model: VAE, x: Tensor, samples: int) -> None:
    """One value."""
    (-log_likelihood(model, model.encoder(x).rsample(torch.Size([samples])), x).mean()).backward()


def chain_backward(model: VAE, x: Tensor, samples: int, passes: int) -> None:
    """Values and gradients along the shortest chain there is, and the gradient of all of them."""
    z, loss = model.encoder(x).rsample(torch.Size([samples])), torch.zeros((), device=x.device)
    for _ in range(passes):
        value, score = value_and_gradient(model, z, x, again=True)
        loss = loss - value.mean() + score.square().mean()
        z = z + STEP * score
    loss.backward()


def flow_backward(model: VAE, x: Tensor, samples: int, flows: Sequence[nn.Module]) -> None:
    """Values along a chain of flows."""
    z = model.encoder(x).rsample(torch.Size([samples]))
    loss = -log_likelihood(model, z, x).mean()
    for flow in flows:
        z, log_det = flow(z)
        loss = loss - log_likelihood(model, z, x).mean() - log_det.mean()
    loss.backward()


def first_order_backward(model: VAE, x: Tensor, samples: int, passes: int) -> None:
    """A chain without a graph. The gradient at z_0 is the encoder's; a last value, at z_K, is the decoder's."""
    start = model.encoder(x).rsample(torch.Size([samples]))
    z = start.detach().requires_grad_()
    _, score = value_and_gradient(model, z, x, again=False)
    first = score
    for _ in range(passes - 1):
        z = (z.detach() + STEP * score).requires_grad_()
        _, score = value_and_gradient(model, z, x, again=False)
    start.backward(-first / first.shape[:2].numel())
    (-log_likelihood(model, z.detach(), x).mean()).backward()


def backward_of(contender: Contender) -> None:
    """The gradients of one iteration's floor."""
    learner, x = contender.experiment.learner, contender.x
    model, samples = learner.model, learner.objective.num_samples
    if contender.kind == "chain":
        chain_backward(model, x, samples, contender.passes)
    elif contender.kind == "first_order":
        first_order_backward(model, x, samples, contender.passes)
    elif contender.kind == "flow":
        flow_backward(model, x, samples, [cast(Any, kernel.proposal).bijection for kernel in learner.sampler.steps])
    else:
        plain_backward(model, x, samples)


def floor(contender: Contender) -> Run:
    """The floor of a method. It trains what it is given: give it a contender of its own."""
    optimizer = contender.experiment.learner.optimizer

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            backward_of(contender)
            optimizer.step()

    return run
