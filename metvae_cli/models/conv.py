"""The residual convolutional network of Thin et al. (2021, arXiv 2106.15921), for images (C, H, W).

There is no batch normalisation, since the rows of a batch belong to independent chains, and the activation is a GELU,
since kernels differentiate through scores. Weights lie channels last, and so do the images after the first convolution:
a quarter of the time of a plain step on a CPU less, and a tenth of a differentiated score's.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import pad

from metvae_cli.models.posteriors import FlowName, Head, HeadName


class DoubleConv(nn.Module):
    """Twice a 3x3 convolution and a GELU. To their output the input is added if it has no more channels than that.

    The channels that the input lacks count as zeros.

    Args:
        in_channels: of the input
        out_channels: of the output
        mid_channels: between the convolutions
    """

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int) -> None:
        super().__init__()
        self.missing_channels = out_channels - in_channels
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(mid_channels, out_channels, 3, padding=1),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        if self.missing_channels < 0:
            return self.net(x)
        return self.net(x) + pad(x, (0, 0, 0, 0, 0, self.missing_channels))


class ConvEncoder(nn.Module):
    """q(z | x) from convolutions that halve the image between them.

    Args:
        event_shape: (C, H, W) of one datum
        latent_dim: D
        channels: of each resolution, from the finest to the coarsest
        head, rank, flow, flow_layers, flow_hidden: what it ends in, see `posteriors.Head`

    Raises:
        ValueError: not an image, or one too small to be halved so often; a number is out of range
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        channels: Sequence[int] = (16, 32, 64, 64),
        head: HeadName = "mean_field",
        rank: int = 2,
        flow: FlowName = "none",
        flow_layers: int = 2,
        flow_hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.head = Head(latent_dim, head, rank, flow, flow_layers, flow_hidden)
        height, width = _coarsest_size("event_shape", event_shape, channels, "encoder=mlp")
        layers: list[nn.Module] = [DoubleConv(event_shape[0], channels[0], channels[0])]
        for channels_in, channels_out in pairwise(channels):
            layers += [nn.MaxPool2d(2), DoubleConv(channels_in, channels_out, channels_out)]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, self.head.size))
        self.net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Distribution:
        """(B, C, H, W) -> distribution with batch shape (B,) and event shape (D,)."""
        return self.head(self.net(x))


class ConvDecoder(nn.Module):
    """Convolutions from z to the likelihood's parameters, an image that is doubled between them.

    The first size is the last one divided by 2 for each doubling and rounded down, so the step to the last size may be
    more than a doubling: 3, 6, 12, 28.

    Args:
        latent_dim: D
        parameter_shape: (C, H, W) of the parameters of one datum
        channels: of each resolution, from the coarsest to the finest

    Raises:
        ValueError: not an image, or one too small to be halved so often; a number of channels below 1
    """

    def __init__(
        self, latent_dim: int, parameter_shape: Sequence[int], channels: Sequence[int] = (64, 32, 16, 16)
    ) -> None:
        super().__init__()
        self.parameter_shape = tuple(parameter_shape)
        height, width = _coarsest_size("parameter_shape", parameter_shape, channels, "decoder=mlp")
        doublings = len(channels) - 1
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, channels[0] * height * width),
            nn.Unflatten(1, (channels[0], height, width)),
        ]
        for power, (channels_in, channels_out) in enumerate(pairwise(channels), start=1):
            size = (height * 2**power, width * 2**power) if power < doublings else tuple(parameter_shape[1:])
            layers += [nn.Upsample(size), DoubleConv(channels_in, channels_out, max(channels_in // 2, 1))]
        net = nn.Sequential(*layers, nn.Conv2d(channels[-1], parameter_shape[0], 1))
        self.net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., C, H, W)."""
        # Convolutions know one batch dimension only.
        images: Tensor = self.net(z.reshape(-1, z.shape[-1]))
        return images.view(*z.shape[:-1], *self.parameter_shape)


def _coarsest_size(name: str, shape: Sequence[int], channels: Sequence[int], other: str) -> tuple[int, int]:
    """Height and width after a halving between each two channels. Raises ValueError, which proposes the `other`."""
    if not channels or min(channels) < 1:
        raise ValueError(f"channels={list(channels)}: must be one or more numbers of at least 1")
    if len(shape) != 3:
        raise ValueError(f"{name}={tuple(shape)}: convolutions need images (channels, height, width); use {other}")
    factor = 2 ** (len(channels) - 1)
    if min(shape[1:]) < factor:
        raise ValueError(
            f"{name}={tuple(shape)}: height and width must be at least {factor}, "
            f"to be halved {len(channels) - 1} times; name fewer channels or use {other}"
        )
    return shape[1] // factor, shape[2] // factor
