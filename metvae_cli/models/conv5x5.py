"""The 5x5 convolutions of Salimans et al. (2015), used by the Hamiltonian VAE and MetVAE too; for images (C, H, W).

Three convolutions of stride 2 and 16, 32 and 32 channels, one hidden layer of 450, softplus throughout.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.distributions import Distribution

from metvae_cli.models.posteriors import FlowName, Head, HeadName


class Conv5x5Encoder(nn.Module):
    """q(z | x) from convolutions of stride 2.

    Args:
        event_shape: (C, H, W) of one datum
        latent_dim: D
        channels: of each convolution
        hidden: width of the layer before the head
        head, rank, flow, flow_layers, flow_hidden: what it ends in, see `posteriors.Head`

    Raises:
        ValueError: not an image, or a number is out of range
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        channels: Sequence[int] = (16, 32, 32),
        hidden: int = 450,
        head: HeadName = "mean_field",
        rank: int = 2,
        flow: FlowName = "none",
        flow_layers: int = 2,
        flow_hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        sizes = halvings("event_shape", event_shape, channels, hidden, "encoder=mlp")
        self.head = Head(latent_dim, head, rank, flow, flow_layers, flow_hidden)
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise([event_shape[0], *channels]):
            layers += [nn.Conv2d(channels_in, channels_out, 5, stride=2, padding=2), nn.Softplus()]
        flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
        self.net = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(flat, hidden), nn.Softplus(), nn.Linear(hidden, self.head.size)
        )

    def forward(self, x: Tensor) -> Distribution:
        """(B, C, H, W) -> distribution with batch shape (B,) and event shape (D,)."""
        return self.head(self.net(x))


class Conv5x5Decoder(nn.Module):
    """From z to the likelihood's parameters by transposed convolutions that undo the encoder's sizes.

    Args:
        latent_dim: D
        parameter_shape: (C, H, W) of the parameters of one datum
        channels: of each transposed convolution's input, the last one's output having those of the parameters
        hidden: width of the first layer

    Raises:
        ValueError: not an image, or a number is out of range
    """

    def __init__(
        self,
        latent_dim: int,
        parameter_shape: Sequence[int],
        channels: Sequence[int] = (32, 32, 16),
        hidden: int = 450,
    ) -> None:
        super().__init__()
        sizes = halvings("parameter_shape", parameter_shape, channels, hidden, "decoder=mlp")[::-1]
        self.parameter_shape = tuple(parameter_shape)
        first = (channels[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, hidden),
            nn.Softplus(),
            nn.Linear(hidden, first[0] * first[1] * first[2]),
            nn.Softplus(),
            nn.Unflatten(1, first),
        ]
        for (channels_in, channels_out), (small, large) in zip(
            pairwise([*channels, parameter_shape[0]]), pairwise(sizes), strict=True
        ):
            # A stride of 2 makes 2 n - 1 pixels of n; what is missing to the next size, none or one, is padded.
            missing = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
            layers += [
                nn.ConvTranspose2d(channels_in, channels_out, 5, stride=2, padding=2, output_padding=missing),
                nn.Softplus(),
            ]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., C, H, W)."""
        images: Tensor = self.net(z.reshape(-1, z.shape[-1]))
        return images.view(*z.shape[:-1], *self.parameter_shape)


def halvings(
    name: str, shape: Sequence[int], channels: Sequence[int], hidden: int, other: str
) -> list[tuple[int, int]]:
    """Height and width before the first convolution and after each. Raises ValueError, which proposes the `other`."""
    if not channels or min(channels) < 1:
        raise ValueError(f"channels={list(channels)}: must be one or more numbers of at least 1")
    if hidden < 1:
        raise ValueError(f"hidden={hidden}: must be at least 1")
    if len(shape) != 3:
        raise ValueError(f"{name}={tuple(shape)}: convolutions need images (channels, height, width); use {other}")
    sizes = [(shape[1], shape[2])]
    for _ in channels:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes
