"""The random numbers of an epoch: its order, and what augmentation draws for each image.

All are drawn on the CPU, by seed and epoch, for the whole epoch at once, and sent to the device. So they are the same
on every device, and whoever goes on from any image of an epoch gets what an uninterrupted run gets. Torch's global
random state is neither used nor changed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch


@dataclass
class EpochDraws:
    """What one augmentation draws in one epoch: a row of each kind for every image, in the epoch's order."""

    key: tuple[int, ...]  # seed, epoch, and which augmentation it is
    num_images: int
    device: torch.device
    _kinds: list[tuple[int, torch.Tensor]] = field(default_factory=list)  # below what, and what was drawn

    def of(self, start: int, stop: int) -> Draws:
        """Returns the draws of the images from number `start` up to `stop` of the epoch."""
        return Draws(self, start, stop)

    def kind(self, number: int, high: int, columns: int) -> torch.Tensor:
        if number == len(self._kinds):
            generator = generator_of(*self.key, number)
            drawn = torch.randint(high, (self.num_images, columns), generator=generator)
            self._kinds.append((high, to_device(drawn, self.device)))
        limit, found = self._kinds[number]
        assert (limit, found.shape[1]) == (high, columns), "an augmentation makes the same calls for any images"
        return found


@dataclass
class Draws:
    """The random numbers of some images, for one call of one augmentation."""

    epoch: EpochDraws
    start: int
    stop: int
    _num_taken: int = 0

    def integers(self, high: int, *, columns: int = 1) -> torch.Tensor:
        """Returns int64 (N, columns) on the device, a row an image: uniform from 0 up to, not including, `high`.

        Each call gives other numbers. An augmentation makes the same calls, in the same order, for any images.
        """
        drawn = self.epoch.kind(self._num_taken, high, columns)[self.start : self.stop]
        self._num_taken += 1
        return drawn

    def uniform(self, *, columns: int = 1) -> torch.Tensor:
        """Returns float32 (N, columns) on the device, a row an image: uniform from 0 up to, not including, 1."""
        return self.integers(2**24, columns=columns) * 2.0**-24  # as many as float32 tells apart


def draw_order(seed: int, epoch: int, num_images: int) -> torch.Tensor:
    """Returns a permutation of all images, for this epoch: int64 (num_images,) on the CPU."""
    return torch.randperm(num_images, generator=generator_of(seed, epoch))


def draw_balanced_order(seed: int, epoch: int, labels: torch.Tensor) -> torch.Tensor:
    """Returns as many images as there are, with replacement: a class at random, then an image of it at random.

    labels: int64 (N,), on the CPU, as is what is returned.
    """
    generator, num = generator_of(seed, epoch), len(labels)
    of_class = labels.argsort(stable=True)  # a run of each class
    counts = torch.bincount(labels)
    starts, present = counts.cumsum(0) - counts, counts.nonzero().flatten()
    chosen = present[torch.randint(len(present), (num,), generator=generator)]
    places = (torch.rand(num, generator=generator, dtype=torch.float64) * counts[chosen]).long()
    return of_class[starts[chosen] + places]


def generator_of(*key: int) -> torch.Generator:
    """Returns a generator for this key alone. Hashed, as the CPU's looks at 32 bits of a seed only."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Sends a tensor of the CPU to a device; from pinned memory, so that nobody waits for a GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
