"""The random numbers of an epoch: its order, and what augmentation draws for each image.

All are drawn on the CPU, by seed and epoch, for the whole epoch at once, and sent to the device. So they are the same
on every device, and whoever goes on from any image of an epoch gets what an uninterrupted run gets. Torch's global
random state is neither used nor changed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch

OF_NO_EPOCH = -1  # in the place of an epoch's number


@dataclass
class EpochDraws:
    """What one augmentation draws in one epoch: a row of each kind for every image, in the epoch's order.

    order: which image of the split each of the epoch is, int64 (num_images,) on the CPU; None: they come as they are
    there. split_size: images of the split; None: all of them come.
    """

    key: tuple[int, int, int]  # seed, epoch, and which augmentation it is
    num_images: int
    device: torch.device
    order: torch.Tensor | None = None
    split_size: int | None = None
    _kinds: list[tuple[int, bool, torch.Tensor]] = field(default_factory=list)  # below what; of the image; the numbers

    def of(self, start: int, stop: int) -> Draws:
        """Returns the draws of the images from number `start` up to `stop` of the epoch."""
        return Draws(self, start, stop)

    def kind(self, number: int, high: int, columns: int, *, of_image: bool = False) -> torch.Tensor:
        if number == len(self._kinds):
            drawn = self._draw_by_image(number, high, columns) if of_image else self._draw(number, high, columns)
            self._kinds.append((high, of_image, to_device(drawn, self.device)))
        *drawn_as, found = self._kinds[number]
        is_same = (*drawn_as, found.shape[1]) == (high, of_image, columns)
        assert is_same, "an augmentation makes the same calls for any images"
        return found

    def _draw(self, number: int, high: int, columns: int) -> torch.Tensor:
        return torch.randint(high, (self.num_images, columns), generator=generator_of(*self.key, number))

    def _draw_by_image(self, number: int, high: int, columns: int) -> torch.Tensor:
        """Numbers of the whole split, by a key that has no epoch; then those of this epoch's images."""
        seed, _, augmentation = self.key
        generator = generator_of(seed, OF_NO_EPOCH, augmentation, number)
        drawn = torch.randint(high, (self.split_size or self.num_images, columns), generator=generator)
        return drawn[: self.num_images] if self.order is None else drawn.index_select(0, self.order)


@dataclass
class Draws:
    """The random numbers of some images, for one call of one augmentation."""

    of_epoch: EpochDraws
    start: int
    stop: int
    _num_taken: int = 0

    @property
    def epoch(self) -> int:
        """The epoch's number, from 0."""
        return self.of_epoch.key[1]

    def integers(self, high: int, *, columns: int = 1) -> torch.Tensor:
        """Returns int64 (N, columns) on the device, a row an image: uniform from 0 up to, not including, `high`.

        Each call gives other numbers. An augmentation makes the same calls, in the same order, for any images.
        """
        return self._take(high, columns)

    def uniform(self, *, columns: int = 1) -> torch.Tensor:
        """Returns float32 (N, columns) on the device, a row an image: uniform from 0 up to, not including, 1."""
        return self.integers(2**24, columns=columns) * 2.0**-24  # as many as float32 tells apart

    def of_image(self, high: int, *, columns: int = 1) -> torch.Tensor:
        """As `integers`, but they belong to the image: the same in every epoch, wherever in its order the image is."""
        return self._take(high, columns, of_image=True)

    def _take(self, high: int, columns: int, *, of_image: bool = False) -> torch.Tensor:
        drawn = self.of_epoch.kind(self._num_taken, high, columns, of_image=of_image)[self.start : self.stop]
        self._num_taken += 1
        return drawn


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
