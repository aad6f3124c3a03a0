"""Pictures of a model: draws of the prior, reconstructions, and the chain from z_0 to z_K decoded.

Every function returns one image (3, H, W) in [0, 1], a grid of data; they draw from torch's global random stream.
"""

import torch
from torch import Tensor

from metvae_cli.evaluation.figures import new_figure, rendered
from metvae_cli.models.vae import VAE
from metvae_cli.objectives.weights import make_path
from metvae_cli.samplers.chain import Sampler
from metvae_cli.torchvision_import import import_torchvision


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Whether data are (1 or 3, H, W)."""
    return len(event_shape) == 3 and event_shape[0] in (1, 3)


@torch.no_grad()
def prior_samples(model: VAE, count: int, device: torch.device) -> Tensor:
    """Means of p(x | z) for draws z of the prior, in a square grid."""
    images = model.generate(count, device)
    return grid(images, round(count**0.5))


@torch.no_grad()
def reconstructions(model: VAE, sampler: Sampler, x: Tensor) -> Tensor:
    """Three rows: the data (B, C, H, W), their means decoded from z_0, and from z_K (left out without a chain)."""
    positions = chain_positions(model, sampler, x)
    rows = [x, model.decode(positions[:1]).mean[0]]
    if len(positions) > 1:
        rows.append(model.decode(positions[-1:]).mean[0])
    return grid(torch.cat(rows), len(x))


@torch.no_grad()
def chain(model: VAE, sampler: Sampler, x: Tensor) -> Tensor:
    """One row per datum of x (B, C, H, W): the datum, then z_0, z_1, ..., z_K decoded."""
    means = model.decode(chain_positions(model, sampler, x)).mean
    rows = torch.cat([x[None], means]).transpose(0, 1).flatten(0, 1)
    return grid(rows, len(means) + 1)


@torch.no_grad()
def chain_positions(model: VAE, sampler: Sampler, x: Tensor) -> Tensor:
    """z_0, ..., z_K of one chain per datum, (K + 1, B, D)."""
    posterior = model.posterior(x)
    path = make_path(posterior, posterior.log_prob, model.joint(x), sampler)
    point = path.evaluate(posterior.rsample((1,)), create_graph=False)
    steps = sampler.iterate(point, path, create_graph=False)
    return torch.cat([point.z, *(later.z for later, _ in steps)])


def grid(images: Tensor, columns: int) -> Tensor:
    """Images (N, C, H, W) side by side, (3, H', W'), enlarged by whole pixels where they are small."""
    factor = max(1, 48 // images.shape[-1])
    large = images.clamp(0, 1).repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    return import_torchvision().utils.make_grid(large.cpu(), nrow=columns, padding=2, pad_value=0.5)


@torch.no_grad()
def latent_scatter(model: VAE, x: Tensor, labels: Tensor | None) -> Tensor:
    """Means of q(z | x) on their two principal axes, coloured by class where there are classes."""
    means = model.posterior(x).mean.cpu()
    centred = means - means.mean(0)
    if means.shape[1] > 2:
        centred = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    across, up = centred[:, 0], centred[:, 1] if centred.shape[1] > 1 else torch.zeros(len(centred))
    figure = new_figure(5, 5)
    axes = figure.add_subplot()
    colours = labels.cpu().numpy() if labels is not None else "tab:blue"
    dots = axes.scatter(across.numpy(), up.numpy(), c=colours, cmap="tab10" if labels is not None else None, s=8)
    if labels is not None:
        axes.legend(*dots.legend_elements(), title="class", fontsize=7, loc="upper right")
    axes.set_title("encoder means, two principal axes")
    return rendered(figure)
