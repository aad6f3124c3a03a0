"""Targets whose draws and cumulative distributions are known exactly."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

NORMAL_CONSTANT = 0.5 * math.log(2 * math.pi)


def normal_cdf(z: Tensor) -> Tensor:
    return torch.special.ndtr(z)


def normal_log_prob(z: Tensor, mean: Tensor | float, scale: Tensor | float) -> Tensor:
    log_scale = torch.log(torch.as_tensor(scale))
    return -0.5 * ((z - mean) / scale) ** 2 - log_scale - NORMAL_CONSTANT


class Target(ABC):
    """A density on R^D. `uniforms` is its Rosenblatt map: exact draws become independent uniforms."""

    name: str
    dim: int

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor: ...

    @abstractmethod
    def sample(self, count: int) -> Tensor: ...

    @abstractmethod
    def uniforms(self, z: Tensor) -> Tensor: ...


class Correlated(Target):
    """Two Gaussian coordinates of correlation 0.8."""

    name, dim, rho = "correlated", 2, 0.8

    def log_prob(self, z: Tensor) -> Tensor:
        given = math.sqrt(1 - self.rho**2)
        return normal_log_prob(z[..., 0], 0.0, 1.0) + normal_log_prob(z[..., 1], self.rho * z[..., 0], given)

    def sample(self, count: int) -> Tensor:
        first, noise = torch.randn(2, count)
        return torch.stack([first, self.rho * first + math.sqrt(1 - self.rho**2) * noise], -1)

    def uniforms(self, z: Tensor) -> Tensor:
        given = (z[..., 1] - self.rho * z[..., 0]) / math.sqrt(1 - self.rho**2)
        return normal_cdf(torch.stack([z[..., 0], given], -1))


class Banana(Target):
    """z1 ~ N(0, 1), z2 | z1 ~ N(z1^2 / 2, 0.7^2)."""

    name, dim, scale = "banana", 2, 0.7

    def log_prob(self, z: Tensor) -> Tensor:
        bend = 0.5 * z[..., 0] ** 2
        return normal_log_prob(z[..., 0], 0.0, 1.0) + normal_log_prob(z[..., 1], bend, self.scale)

    def sample(self, count: int) -> Tensor:
        first, noise = torch.randn(2, count)
        return torch.stack([first, 0.5 * first**2 + self.scale * noise], -1)

    def uniforms(self, z: Tensor) -> Tensor:
        return normal_cdf(torch.stack([z[..., 0], (z[..., 1] - 0.5 * z[..., 0] ** 2) / self.scale], -1))


class Funnel(Target):
    """z1 ~ N(0, 1), z2 | z1 ~ N(0, e^(z1))."""

    name, dim = "funnel", 2

    def log_prob(self, z: Tensor) -> Tensor:
        return normal_log_prob(z[..., 0], 0.0, 1.0) + normal_log_prob(z[..., 1], 0.0, (0.5 * z[..., 0]).exp())

    def sample(self, count: int) -> Tensor:
        first, noise = torch.randn(2, count)
        return torch.stack([first, noise * (0.5 * first).exp()], -1)

    def uniforms(self, z: Tensor) -> Tensor:
        return normal_cdf(torch.stack([z[..., 0], z[..., 1] * (-0.5 * z[..., 0]).exp()], -1))


class TwoModes(Target):
    """0.3 N(-1.5, 0.6^2) + 0.7 N(1, 0.8^2)."""

    name, dim = "two_modes", 1
    weights, means, scales = (0.3, 0.7), (-1.5, 1.0), (0.6, 0.8)

    def log_prob(self, z: Tensor) -> Tensor:
        parts = zip(self.weights, self.means, self.scales, strict=True)
        terms = [math.log(w) + normal_log_prob(z[..., 0], m, s) for w, m, s in parts]
        return torch.logsumexp(torch.stack(terms), 0)

    def sample(self, count: int) -> Tensor:
        second = torch.rand(count) < self.weights[1]
        means, scales = torch.tensor(self.means), torch.tensor(self.scales)
        return (means[second.long()] + scales[second.long()] * torch.randn(count))[:, None]

    def uniforms(self, z: Tensor) -> Tensor:
        parts = zip(self.weights, self.means, self.scales, strict=True)
        return sum((w * normal_cdf((z - m) / s) for w, m, s in parts), torch.zeros_like(z))


TARGETS = (Correlated(), Banana(), Funnel(), TwoModes())
