"""Targets whose draws and cumulative distributions are known exactly."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

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


class DeepFunnel(Target):
    """Neal's funnel in ten dimensions: v ~ N(0, 3^2), and nine coordinates that are N(0, e^v) given v."""

    name, dim, spread = "deep_funnel", 10, 3.0

    def log_prob(self, z: Tensor) -> Tensor:
        neck = z[..., 0]
        scale = (0.5 * neck).exp()[..., None]
        return normal_log_prob(neck, 0.0, self.spread) + normal_log_prob(z[..., 1:], 0.0, scale).sum(-1)

    def sample(self, count: int) -> Tensor:
        neck = self.spread * torch.randn(count, 1)
        return torch.cat([neck, torch.randn(count, self.dim - 1) * (0.5 * neck).exp()], -1)

    def uniforms(self, z: Tensor) -> Tensor:
        neck = z[..., :1]
        return normal_cdf(torch.cat([neck / self.spread, z[..., 1:] * (-0.5 * neck).exp()], -1))


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


class Ring(Target):
    """Radius ~ N(3, 0.45^2), which is negative with probability 1e-11, and a uniform angle."""

    name, dim, radius, scale = "ring", 2, 3.0, 0.45

    def log_prob(self, z: Tensor) -> Tensor:
        distance = z.square().sum(-1).sqrt()
        return normal_log_prob(distance, self.radius, self.scale) - torch.log(2 * math.pi * distance)

    def sample(self, count: int) -> Tensor:
        distance = self.radius + self.scale * torch.randn(count)
        angle = 2 * math.pi * torch.rand(count)
        return distance[:, None] * torch.stack([angle.cos(), angle.sin()], -1)

    def uniforms(self, z: Tensor) -> Tensor:
        distance = z.square().sum(-1).sqrt()
        angle = torch.atan2(z[..., 1], z[..., 0])
        return torch.stack([normal_cdf((distance - self.radius) / self.scale), 0.5 + angle / (2 * math.pi)], -1)


class EightModes(Target):
    """Eight equal Gaussians on a circle; mode k lies at the angle (k + 1/4) pi / 4, so that no axis is special."""

    name, dim = "eight_modes", 2

    def __init__(self, radius: float = 3.0, scale: float = 0.8) -> None:
        self.scale = scale
        angles = (torch.arange(8, dtype=torch.float64) + 0.25) * math.pi / 4
        self.means = radius * torch.stack([angles.cos(), angles.sin()], -1)

    def log_prob(self, z: Tensor) -> Tensor:
        squared = (z[..., None, :] - self.means.to(z)).square().sum(-1)
        constant = 2 * (NORMAL_CONSTANT + math.log(self.scale)) + math.log(8)
        return torch.logsumexp(-0.5 * squared / self.scale**2, -1) - constant

    def sample(self, count: int) -> Tensor:
        noise = torch.randn(count, 2)
        return self.means.to(noise)[torch.randint(8, (count,))] + self.scale * noise

    def uniforms(self, z: Tensor) -> Tensor:
        standard = (z[..., None, :] - self.means.to(z)) / self.scale
        weights = torch.softmax(-0.5 * standard[..., 0].square(), -1)  # of the modes, given the first coordinate
        below = normal_cdf(standard)
        return torch.stack([below[..., 0].mean(-1), (weights * below[..., 1]).sum(-1)], -1)


class Student(Target):
    """Two independent coordinates of Student's t with 5 degrees of freedom."""

    name, dim, freedom = "student", 2, 5

    def log_prob(self, z: Tensor) -> Tensor:
        half = 0.5 * (self.freedom + 1)
        constant = math.lgamma(half) - math.lgamma(half - 0.5) - 0.5 * math.log(math.pi * self.freedom)
        return (constant - half * torch.log1p(z.square() / self.freedom)).sum(-1)

    def sample(self, count: int) -> Tensor:
        spread = torch.randn(count, 2, self.freedom).square().mean(-1).sqrt()
        return torch.randn(count, 2) / spread

    def uniforms(self, z: Tensor) -> Tensor:
        angle = torch.atan(z / math.sqrt(self.freedom))  # in closed form for odd degrees of freedom
        sine, cosine = angle.sin(), angle.cos()
        return 0.5 + (angle + sine * (cosine + 2 / 3 * cosine**3)) / math.pi


class Normals(Target):
    """Gaussian coordinates of given scales; coordinates i and j have the correlation rho^|i - j|."""

    def __init__(self, name: str, scales: Sequence[float], rho: float, mean: Sequence[float] | None = None) -> None:
        self.name, self.dim = name, len(scales)
        self.mean = torch.tensor(mean or [0.0] * self.dim, dtype=torch.float64)
        scale, index = torch.tensor(scales, dtype=torch.float64), torch.arange(self.dim, dtype=torch.float64)
        distance = (index[:, None] - index).abs()
        self.covariance = scale[:, None] * rho**distance * scale
        self.cholesky = torch.linalg.cholesky(self.covariance)
        self.whitening = torch.linalg.inv(self.cholesky).T.contiguous()
        self.constant = self.dim * NORMAL_CONSTANT + self.cholesky.diagonal().log().sum().item()

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * self._whitened(z).square().sum(-1) - self.constant

    def sample(self, count: int) -> Tensor:
        noise = torch.randn(count, self.dim)
        return self.mean.to(noise) + noise @ self.cholesky.to(noise).T

    def uniforms(self, z: Tensor) -> Tensor:
        return normal_cdf(self._whitened(z))

    def _whitened(self, z: Tensor) -> Tensor:
        return (z - self.mean.to(z)) @ self.whitening.to(z)


class FiveNormals(Normals):
    """Five correlated coordinates, of distinct means and scales.

    They are such that the independent proposals of the table of kernels are accepted often enough.
    """

    def __init__(self) -> None:
        super().__init__("five_normals", (2.0, 1.4, 1.3, 1.7, 1.1), 0.3, mean=(-0.9, 0.0, 0.5, -0.2, -0.4))


TARGETS = (Correlated(), Banana(), Funnel(), TwoModes())
MORE_TARGETS = (Ring(), EightModes(), Student(), FiveNormals())
