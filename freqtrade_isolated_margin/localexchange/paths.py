"""Price paths: smooth, deterministic functions of time that can be asked for any moment."""

import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

# Period in seconds and size (as a natural logarithm) of the layers that make up a random path.
_LAYERS = ((20.0, 0.0006), (150.0, 0.002), (1200.0, 0.006), (9000.0, 0.02), (86400.0, 0.06))


class Path(Protocol):
    """What a price does from the start of a scenario."""

    def factor(self, elapsed: float, seed: int) -> float:
        """Price at `elapsed` seconds (never negative) as a multiple of the price at the start."""


def seed_of(name: str) -> int:
    """Return a number that is the same for a name in every process, unlike `hash()`."""
    return zlib.crc32(name.encode())


@lru_cache(maxsize=1 << 17)
def _lattice(seed: int, index: int) -> float:
    """Return an arbitrary but fixed number between -1 and 1."""
    mixed = (seed * 0x9E3779B1 + index * 0x85EBCA6B + 0x27D4EB2F) & 0xFFFFFFFF
    for shift in (15, 13, 16):
        mixed = ((mixed ^ (mixed >> shift)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return mixed / 0x7FFFFFFF - 1.0


def _ease(share: float) -> float:
    """Go from 0 to 1 without a kink at either end."""
    return share * share * (3.0 - 2.0 * share)


def noise(seed: int, position: float) -> float:
    """Smooth random curve between -1 and 1 with one random value per unit of position."""
    index = math.floor(position)
    left, right = _lattice(seed, index), _lattice(seed, index + 1)
    return left + (right - left) * _ease(position - index)


def wander(seed: int, seconds: float, scale: float = 1.0) -> float:
    """Random path through 1 at 0 seconds, defined for negative seconds as well."""
    return math.exp(scale * (_layers(seed, seconds) - _layers_at_zero(seed)))


def _layers(seed: int, seconds: float) -> float:
    return sum(size * noise(seed + layer, seconds / period) for layer, (period, size) in enumerate(_LAYERS))


@lru_cache(maxsize=4096)
def _layers_at_zero(seed: int) -> float:
    return _layers(seed, 0.0)


@dataclass(frozen=True, slots=True)
class Keyframes:
    """A path drawn through points of (seconds, factor), smooth between them and still after the last."""

    points: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    wiggle: float = 0.0
    """Size of a small random movement on top; it begins at nothing."""

    def factor(self, elapsed: float, seed: int) -> float:
        """Return the drawn curve with the wiggle on top."""
        curve = self._curve(elapsed)
        if not self.wiggle:
            return curve
        return curve * (1.0 + self.wiggle * (noise(seed, elapsed / 5.0) - noise(seed, 0.0)) / 2.0)

    def _curve(self, elapsed: float) -> float:
        for (begin, low), (end, high) in pairwise(self.points):
            if elapsed < end:
                return low + (high - low) * _ease(max(0.0, elapsed - begin) / (end - begin))
        return self.points[-1][1]


@dataclass(frozen=True, slots=True)
class Walk:
    """A random path without an end, different for each pair, the same in each run."""

    seed: int = 0
    scale: float = 1.0

    def factor(self, elapsed: float, seed: int) -> float:
        """Return the random path of this pair."""
        return wander(seed + 7919 * self.seed, elapsed, self.scale)
