"""What processes hold over time: samples, and the slope of their memory."""

import time
from dataclasses import dataclass

from tests.support.exchange_pair import ExchangePair
from tests.support.observation import Holding, holdings

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """What each worker held at one time."""

    at: float
    held: dict[int, Holding]


class Growth:
    """Samples of one phase, in which no worker is replaced."""

    def __init__(self, rig: ExchangePair) -> None:
        self._rig = rig
        self._samples: list[Sample] = []

    def sample(self) -> None:
        """Look once."""
        self._samples.append(Sample(time.monotonic(), holdings(self._rig.pair)))

    @property
    def pids(self) -> set[int]:
        """The workers that were there all the time."""
        return set.intersection(*(set(sample.held) for sample in self._samples))

    def resident_bytes_per_second(self, pid: int) -> float:
        """The slope of a worker's memory, by least squares."""
        points = [(sample.at, sample.held[pid].resident_bytes) for sample in self._samples]
        mean_at = sum(at for at, _ in points) / len(points)
        mean_size = sum(size for _, size in points) / len(points)
        spread = sum((at - mean_at) ** 2 for at, _ in points)
        return sum((at - mean_at) * (size - mean_size) for at, size in points) / (spread or 1)

    def grown_bytes(self, pid: int) -> float:
        """What that slope comes to over the phase."""
        return self.resident_bytes_per_second(pid) * (self._samples[-1].at - self._samples[0].at)
