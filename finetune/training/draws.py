"""Random numbers for a batch, all from one generator and on its device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Draw:
    """Draws random tensors from one generator."""

    def __init__(self, rng: torch.Generator, device: torch.device) -> None:
        self.rng, self.device = rng, device

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(count,) float32, all values between the two equally likely."""
        return low + (high - low) * torch.rand(count, generator=self.rng, device=self.device)

    def log_uniform(self, count: int, low: float, high: float) -> Tensor:
        """(count,) float32, all ratios between the two equally likely."""
        return self.uniform(count, math.log(low), math.log(high)).exp()

    def chance(self, count: int, share: float) -> Tensor:
        """(count,) bool, true with probability ``share``."""
        return self.uniform(count) < share

    def integers(self, count: int, low: int, high: int) -> Tensor:
        """(count,) int64, from ``low`` up to, not including, ``high``."""
        return torch.randint(low, high, (count,), generator=self.rng, device=self.device)

    def normal(self, *size: int) -> Tensor:
        """``size`` float32, standard normal."""
        return torch.randn(size, generator=self.rng, device=self.device)

    def sign(self, count: int, share: float) -> Tensor:
        """(count,) float32: 1 with probability ``share``, else -1."""
        return 2.0 * self.chance(count, share) - 1
