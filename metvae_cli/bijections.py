"""Bijections of R^D with their log-determinants: the maps that flow proposals, encoders and priors are made of."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from zuko.flows import MAF, NSF, RealNVP
from zuko.flows.gaussianization import ElementWiseTransform
from zuko.lazy import LazyComposedTransform

from metvae_cli import coupling

TransformName = Literal["realnvp", "spline", "autoregressive", "affine"]
NEAR_IDENTITY = 0.1


class Bijection(nn.Module):
    """A map of R^D onto itself that starts near the identity, with its inverse and the log-determinants of both.

    Args:
        latent_dim: D
        context_dim: C, of what the map is told; 0 for nothing
        transform: `realnvp` (affine coupling), `spline` (coupling by monotone splines, the identity outside of
            [-5, 5]), `autoregressive` (affine; its inverse takes D passes) or `affine` (one per coordinate)
        layers: of the first three; an affine map has one. A single coupling moves only half of the coordinates
        hidden: widths of the layers of each network

    by_rows: on a CPU, `directed` gives each direction its own rows; False where these may not be looked at, as under
        torch.vmap

    Raises:
        ValueError: a number is out of range
    """

    couples: bool = False  # its layers are affine couplings of two halves, see `coupling.py`
    by_rows: bool = True

    def __init__(
        self, latent_dim: int, context_dim: int, transform: TransformName, layers: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers={layers}: must be at least 1")
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden={list(hidden)}: every width must be at least 1")
        widths: dict[str, Any] = {"hidden_features": tuple(hidden)}
        if transform == "affine":
            self.map = LazyComposedTransform(ElementWiseTransform(latent_dim, context_dim, **widths))
        elif transform == "realnvp":
            self.map = RealNVP(latent_dim, context_dim, transforms=layers, **widths).transform
        elif transform == "spline":  # two passes make a coupling, as cheap backwards as forwards
            self.map = NSF(latent_dim, context_dim, transforms=layers, passes=2, **widths).transform
        else:
            self.map = MAF(latent_dim, context_dim, transforms=layers, **widths).transform
        self.couples = transform == "realnvp" and latent_dim % 2 == 0
        _shrink(cast(LazyComposedTransform, self.map))

    def forward(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T(w) and log |det dT/dw|, for w (..., D) and a context that broadcasts against it, (..., C)."""
        if self.couples:
            return coupling.forward(coupling.couplings(cast(LazyComposedTransform, self.map)), w, context)
        return cast(Any, self.map(context)).call_and_ladj(w)

    def inverse(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The inverse of T at w, and its log-determinant there."""
        if self.couples:
            return coupling.inverse(coupling.couplings(cast(LazyComposedTransform, self.map)), w, context)
        return cast(Any, self.map(context)).inv.call_and_ladj(w)

    def directed(self, w: Tensor, direction: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T^v w and log |det dT^v/dw|, for w (S, B, D) and v, +1 or -1, (S, B, 1).

        Affine couplings do both directions at once. Of other maps, on a CPU, each direction gets its own rows;
        elsewhere to count them would be to wait for the device: both directions are computed for all rows, and each
        gets the origin in place of the rows that go the other way, for a row that overflows in the direction it does
        not take would put NaN into the gradient.
        """
        if self.couples:
            return coupling.directed(coupling.couplings(cast(LazyComposedTransform, self.map)), w, direction, context)
        if w.device.type == "cpu" and self.by_rows:
            return self._each_its_rows(w, direction[..., 0] > 0, context)
        forwards, origin = direction > 0, torch.zeros_like(w)
        ahead, log_det_ahead = self(torch.where(forwards, w, origin), context)
        back, log_det_back = self.inverse(torch.where(forwards, origin, w), context)
        return torch.where(forwards, ahead, back), torch.where(forwards[..., 0], log_det_ahead, log_det_back)

    def _each_its_rows(self, w: Tensor, forwards: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """`directed`, with each direction for its own rows only. forwards: (S, B) bool."""
        rows, goes = w.flatten(0, 1), forwards.flatten()
        given = None if context is None else context.expand(*w.shape[:2], -1).flatten(0, 1)
        ahead, back = goes.nonzero()[:, 0], (~goes).nonzero()[:, 0]
        parts = [
            move(rows[index], None if given is None else given[index])
            for move, index in ((self, ahead), (self.inverse, back))
            if len(index)
        ]
        order = torch.cat([ahead, back]).argsort()
        moved, log_det = (torch.cat(column)[order] for column in zip(*parts, strict=True))
        return moved.view_as(w), log_det.view(w.shape[:2])


def _shrink(transform: LazyComposedTransform) -> None:
    """Bring the last layers near 0, where every map is the identity; not to 0, where the layers below learn nothing."""
    with torch.no_grad():
        for layer in cast(Any, transform.transforms):
            last = layer.hyper[-1] if hasattr(layer, "hyper") else layer
            for parameter in last.parameters():
                parameter *= NEAR_IDENTITY
