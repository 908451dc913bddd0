"""Batches of a split: shuffled, augmented, normalized, on the device.

The order of an epoch depends on (seed, epoch) alone, and the augmentation of a chunk, a few batches that are prepared
together, on (seed, epoch, chunk). So there is no random state to save: whoever asks for epoch 7 from batch 123 gets
the batches that an uninterrupted run gets. Torch's global random state is neither used nor changed.
"""

from __future__ import annotations

import hashlib
import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from pipeline.data.dataset import FileSplit, Split
from pipeline.data.normalization import Normalization, PixelNormalizer
from pipeline.errors import DataError

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]

CHUNK_VALUES = 2**22
"""Pixels times channels that are prepared together: 8 MiB of bfloat16, 1365 images of 32 x 32 x 3.

Many small batches cost as few calls as one large one, and a chunk still fits in a CPU's cache.
"""


class Loader:
    """Gives a split's batches, the last and smaller one included, but not one of a single image to train on.

    augment: functions as in `augment.py`, their options already bound, applied in this order.
    dtype: of the images that are given. num_workers: processes that read a FileSplit ahead; 0 reads in this one.
    """

    def __init__(
        self,
        split: Split | FileSplit,
        *,
        batch_size: int,
        device: torch.device,
        normalization: Normalization,
        dtype: torch.dtype,
        augment: Sequence[Callable[..., torch.Tensor]],
        seed: int,
        shuffle: bool,
        num_workers: int = 2,
    ) -> None:
        self.batch_size, self.device = batch_size, device
        self.augment, self.seed, self.shuffle = tuple(augment), seed, shuffle
        self.num_images = len(split)
        if shuffle and batch_size > 1 and self.num_images > 1 and self.num_images % batch_size == 1:
            self.num_images -= 1  # batch norm has no variance of one image; it is another one each epoch
        self.num_batches = -(-self.num_images // batch_size)
        values = split.image_size**2 * split.channels
        self.chunk_batches = max(1, CHUNK_VALUES // (values * batch_size))
        self._labels = split.labels.to(device)
        self._images: _Memory | _Files = (
            _Memory(split, device) if isinstance(split, Split) else _Files(split, device, num_workers)
        )
        self._normalize = PixelNormalizer(normalization, image_size=split.image_size, device=device, dtype=dtype)
        self._fill = normalization.mean_color().to(device)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on: images (B, C, H, W), channels_last; labels int64 (B,)."""
        chunk, skip_batches = divmod(first, self.chunk_batches)
        size = self.chunk_batches * self.batch_size
        order = self._order(epoch)[chunk * size :]
        all_labels = self._labels.index_select(0, order.to(self.device))
        for number, images in enumerate(self._images.read(order, size)):
            images = self._normalize(self._augmented(images, epoch, chunk + number))
            labels = all_labels[number * size : (number + 1) * size]
            batches = zip(torch.split(images, self.batch_size), torch.split(labels, self.batch_size), strict=True)
            yield from itertools.islice(batches, skip_batches, None)
            skip_batches = 0

    def _order(self, epoch: int) -> torch.Tensor:
        """Drawn on the CPU, so that it is the same on every device."""
        if not self.shuffle:
            return torch.arange(self.num_images)
        return torch.randperm(len(self._labels), generator=_generator(torch.device("cpu"), self.seed, epoch))[
            : self.num_images
        ]

    def _augmented(self, images: torch.Tensor, epoch: int, chunk: int) -> torch.Tensor:
        generator = _generator(self.device, self.seed, epoch, chunk)
        for augmentation in self.augment:
            images = augmentation(images, generator=generator, fill=self._fill)
        return images


class _Memory:
    """Images that are all in memory: the device's, or the machine's where they are too many for a GPU."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.device = device
        self.images = split.images.to(device) if _fits(split.images, device) else split.images

    def read(self, order: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        """The images in this order, `size` at a time."""
        order = order.to(self.images.device)
        for start in range(0, len(order), size):
            # On a CPU 20 times as fast as self.images[...].
            images = self.images.index_select(0, order[start : start + size])
            yield images.to(self.device)


def _fits(images: torch.Tensor, device: torch.device) -> bool:
    """Whether all images may lie on the device: at most half of what is free of a GPU's memory."""
    return device.type != "cuda" or images.numel() <= torch.cuda.mem_get_info(device)[0] // 2


class _Files:
    """Images on disk, read ahead by worker processes that live as long as the loader."""

    def __init__(self, split: FileSplit, device: torch.device, num_workers: int) -> None:
        self.device = device
        self.chunks = _Chunks()
        self.loader = DataLoader(
            _Reader(split),
            batch_size=None,
            sampler=self.chunks,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            # Spawned, not forked: a fork keeps the job's lease and CUDA's state, and is unsafe beside threads.
            multiprocessing_context="spawn" if num_workers else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_interrupts_to_the_job,
            generator=torch.Generator(),  # else it draws from the global one
        )

    def read(self, order: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        """The images in this order, `size` at a time. Raises DataError where a file cannot be read."""
        self.chunks.order, self.chunks.size = order, size
        for images in self.loader:
            if isinstance(images, str):
                raise DataError(images)
            yield images.to(self.device, non_blocking=True)


def _leave_interrupts_to_the_job(worker: int) -> None:  # noqa: ARG001
    """Ctrl-C in a terminal reaches every process; the job still needs its readers while it saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Chunks:
    """A sampler whose indices are whole chunks, of an order that is set anew for each epoch."""

    order: torch.Tensor
    size: int

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.order), self.size):
            yield self.order[start : start + self.size].tolist()

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)


class _Reader(TorchDataset[torch.Tensor | str]):
    """Reads a chunk, or says why it cannot: an error that is raised in a worker has a traceback for a message."""

    def __init__(self, split: FileSplit) -> None:
        self.split = split

    def __getitem__(self, indices: Sequence[int]) -> torch.Tensor | str:
        try:
            return self.split.read(indices)
        except DataError as error:
            return str(error)


def _generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator for this key alone. Hashed, as the CPU's looks at 32 bits of a seed only."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little"))
