"""What the values of a user's own data are: found from their type and range, checked, and stored accordingly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metvae_cli.data.base import Support

ValueKind = Literal["auto", "binary", "levels", "unit", "real", "counts"]

# Data are float32: whole numbers above this are no longer all there.
LARGEST_COUNT = 2**24
# So many features are told one by one.
_TOLD = 6


def find_support(parts: Sequence[Tensor]) -> Support:
    """What the values of all parts of a data set are, by type and range.

    {0, 1}: "binary"; other uint8: "levels"; other non-negative integers: "counts"; other floats in [0, 1]: "unit";
    everything else: "real". Floats that happen to be whole numbers are "real": the user may know better.

    Args:
        parts: uint8, int64, float32 or float64 tensors of one type, none empty
    """
    if not misfit(parts, "binary"):
        return "binary"
    if parts[0].dtype == torch.uint8:
        return "levels"
    if not parts[0].is_floating_point():
        return "counts" if not misfit(parts, "counts") else "real"
    return "unit" if not misfit(parts, "unit") else "real"


def misfit(parts: Sequence[Tensor], support: Support) -> str:
    """Why the values are not of this kind; empty where they are."""
    low, high = value_range(parts)
    floats = parts[0].is_floating_point()
    tests: dict[Support, tuple[bool, str]] = {
        "binary": (_all(parts, lambda part: ((part == 0) | (part == 1)).all()), "must be 0 or 1"),
        "levels": (low >= 0 and high <= 255 and _whole(parts), "must be whole numbers in 0..255"),
        "unit": (low >= 0 and high <= 1, "must lie in [0, 1]"),
        "counts": (low >= 0 and high <= LARGEST_COUNT and _whole(parts), f"must be whole, in 0..{LARGEST_COUNT}"),
        "real": (True, ""),
    }
    fits, rule = tests[support]
    kind = str(parts[0].dtype).removeprefix("torch.")
    between = f"{low:.6g} and {high:.6g}" if floats else f"{low:.0f} and {high:.0f}"
    return "" if fits else f"{rule}, found {kind} between {between}"


def value_range(parts: Sequence[Tensor]) -> tuple[float, float]:
    """Smallest and largest value."""
    return min(part.min().item() for part in parts), max(part.max().item() for part in parts)


def stored(values: Tensor, support: Support) -> Tensor:
    """As `Split` holds them: uint8 for "binary" (0 and 255) and "levels", float32 for the others."""
    if support == "binary":
        return values.to(torch.uint8).mul_(255) if values.dtype != torch.uint8 else values * 255
    return values.to(torch.uint8) if support == "levels" else values.float()


@dataclass(frozen=True)
class Standardization:
    """(x - mean) / scale, of the training data, in float64.

    mean, scale: of the shape of one datum, with 1 for dimensions that share them; scale is 1 where a value is constant
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, train: Tensor) -> "Standardization":
        """Of training data: (N, D) for each value by itself, (N, C, H, W) for each channel.

        Raises ValueError where mean or scale are beyond floating-point numbers.
        """
        shared = (0, *range(2, train.dim()))
        values = train.double()
        mean, scale = values.mean(shared, keepdim=True)[0], values.std(shared, correction=0, keepdim=True)[0]
        constant = values.amax(shared, keepdim=True)[0] == values.amin(shared, keepdim=True)[0]
        scale = torch.where(constant | (scale == 0), torch.ones_like(scale), scale)
        if not (mean.isfinite().all() and scale.isfinite().all()):
            raise ValueError("too large to be standardized")
        return cls(mean, scale)

    def apply(self, values: Tensor) -> Tensor:
        """Standardized values, float64, same shape."""
        return (values.double() - self.mean) / self.scale

    def told(self) -> str:
        """In words, for the log."""
        means, scales = self.mean.flatten().tolist(), self.scale.flatten().tolist()
        if len(means) <= _TOLD:
            return "standardized by " + ", ".join(
                f"(x - {m:.6g}) / {s:.6g}" for m, s in zip(means, scales, strict=True)
            )
        return (
            f"standardized value by value, with means in {min(means):.6g}..{max(means):.6g} and scales in "
            f"{min(scales):.6g}..{max(scales):.6g}"
        )


def _all(parts: Sequence[Tensor], test: Callable[[Tensor], Tensor]) -> bool:
    return all(bool(test(part)) for part in parts)


def _whole(parts: Sequence[Tensor]) -> bool:
    return not parts[0].is_floating_point() or _all(parts, lambda part: (part == part.trunc()).all())
