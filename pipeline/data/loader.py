"""Batches of a split: shuffled, augmented, normalized, on the device.

Order and augmentation of an epoch are functions of seed and epoch (`draws.py`), so there is no random state to save:
whoever asks for epoch 7 from batch 123 gets the batches that an uninterrupted run gets.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from pipeline.data.draws import EpochDraws, draw_balanced_order, draw_order, to_device
from pipeline.data.normalization import Normalization, PixelNormalizer
from pipeline.data.splits import FileSplit, Split
from pipeline.errors import DataError
from pipeline.wording import plural

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]

CHUNK_VALUES = {"cpu": 2**22, "cuda": 2**26}
"""Pixels times channels that are prepared together, on each kind of device.

Many small batches cost as few calls as one large one. On a CPU a chunk still fits in its cache: 8 MiB of bfloat16, 1365
images of 32 x 32 x 3. A GPU is given few and large ones, as it waits for each call: an epoch of CIFAR-10 is three.
"""
READ_VALUES = 2**22  # that a process reads from files in one turn
SHARED_BYTES = (
    2**29
)  # of shared memory that the readers of a loader may fill, each with two turns; a container has 2 GiB
COPIED_VALUES = 2**24  # of images that do not fit on the GPU: 16 MiB are copied while those before are trained on


class Loader:
    """Gives a split's batches, the last and smaller one included, but not one of a single image to train on.

    Raises DataError where `drop_last` would leave nothing.

    augment: functions as in `augment.py`, their options already bound, applied in this order.
    balanced: an epoch has as many images, but drawn from all classes alike, some more than once.
    drop_last: an epoch ends with its last whole batch, as with PyTorch's `DataLoader` (and in Jordan, 2024).
    dtype: of the images that are given. num_readers: processes that read a FileSplit ahead, at most; 0: this one reads.
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
        balanced: bool = False,
        drop_last: bool = False,
        num_readers: int = 2,
    ) -> None:
        self.batch_size, self.device = batch_size, device
        self.augment, self.seed, self.shuffle, self.balanced = tuple(augment), seed, shuffle, balanced
        self.num_images = len(split)
        left_over = self.num_images % batch_size
        is_single = shuffle and left_over == 1 and self.num_images > 1  # batch norm has no variance of one image
        if drop_last or is_single:
            self.num_images -= left_over  # of a shuffled split, other ones each epoch
        if not self.num_images:
            raise DataError(
                f"data.last_batch: drop leaves nothing of {plural(len(split), 'image')} to train on, as data.batch_size"
                f" is {batch_size}; set data.batch_size: {len(split)}, or data.last_batch: keep"
            )
        self.num_batches = -(-self.num_images // batch_size)
        self._split, self._labels = split, split.labels.to(device)
        values = split.image_size**2 * split.channels * batch_size
        self._images: _Memory | _Files
        if isinstance(split, Split):
            self._images = _Memory(split, device)
            self._chunk_images = batch_size * max(1, self._images.chunk_values // values)
        else:
            turns = max(1, READ_VALUES // values)
            self._chunk_images = batch_size * turns
            useful = min(-(-self.num_images // self._chunk_images), max(1, SHARED_BYTES // (2 * values * turns)))
            self._images = _Files(split, device, min(num_readers, useful))
        self._normalize = PixelNormalizer(normalization, image_size=split.image_size, device=device, dtype=dtype)
        self._fill = normalization.mean_color().to(device)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on: images (B, C, H, W), channels_last; labels int64 (B,)."""
        start = first * self.batch_size
        whole = self._order(epoch)
        order = whole[start:]
        if not len(order):
            return
        at = to_device(order, self.device)
        labels, draws = self._labels.index_select(0, at), self._draws(epoch, whole)
        for images in self._images.read(order, at, self._chunk_images):
            stop = start + len(images)
            images = self._prepared(images, draws, start)
            now, labels = labels[: len(images)], labels[len(images) :]
            yield from zip(torch.split(images, self.batch_size), torch.split(now, self.batch_size), strict=True)
            start = stop

    def peek(self, num: int) -> torch.Tensor:
        """Returns the first images of epoch 0 as they are trained on: (N, C, H, W). It disturbs no epoch under way."""
        order = self._order(0)
        images = self._split.read(order[:num].tolist()).to(self.device)
        return self._prepared(images, self._draws(0, order), 0)

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self.num_images)
        if self.balanced:
            return draw_balanced_order(self.seed, epoch, self._split.labels)[: self.num_images]
        return draw_order(self.seed, epoch, len(self._labels))[: self.num_images]

    def _draws(self, epoch: int, order: torch.Tensor) -> list[EpochDraws]:
        """Of each augmentation. order: of the whole epoch."""
        return [
            EpochDraws((self.seed, epoch, n), self.num_images, self.device, order, len(self._labels))
            for n in range(len(self.augment))
        ]

    def _prepared(self, images: torch.Tensor, draws: Sequence[EpochDraws], start: int) -> torch.Tensor:
        """Augmented and normalized. images: uint8 (N, H, W, C), from number `start` of an epoch on."""
        for augmentation, numbers in zip(self.augment, draws, strict=True):
            images = augmentation(images, draws=numbers.of(start, start + len(images)), fill=self._fill)
        return self._normalize(images)


class _Memory:
    """Images that are all in memory: the device's, or the machine's where they are too many for a GPU."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.device = device
        self.is_copied = device.type == "cuda" and not _fits(split.images, device)
        self.side = _side_stream(device)
        self.images = split.images if self.is_copied else split.images.to(device)
        self.chunk_values = COPIED_VALUES if self.is_copied else CHUNK_VALUES[device.type]

    def read(self, order: torch.Tensor, at: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        """The images in this order, `size` at a time. order, at: the same, on the CPU and on the device."""
        if self.is_copied:
            return _copied_ahead(map(self._pinned, torch.split(order, size)), self.side)
        # On a CPU 20 times as fast as self.images[...].
        return (self.images.index_select(0, indices) for indices in torch.split(at, size))

    def _pinned(self, indices: torch.Tensor) -> torch.Tensor:
        pinned = torch.empty((len(indices), *self.images.shape[1:]), dtype=torch.uint8, pin_memory=True)
        return torch.index_select(self.images, 0, indices, out=pinned)


def _fits(images: torch.Tensor, device: torch.device) -> bool:
    """Whether all images may lie on the GPU: at most half of what is free of its memory."""
    return images.numel() <= torch.cuda.mem_get_info(device)[0] // 2


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """One a loader, and not one an epoch: what was freed in a stream is used again in that one alone."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _copied_ahead(chunks: Iterable[torch.Tensor], side: torch.cuda.Stream | None) -> Iterator[torch.Tensor]:
    """The chunks, from pinned memory, on a GPU: each is copied while the one before it is trained on."""
    assert side is not None
    ahead: tuple[torch.Tensor, torch.cuda.Event] | None = None
    for chunk in chunks:
        with torch.cuda.stream(side):
            copied = chunk.to(side.device, non_blocking=True), side.record_event()
        if ahead is not None:
            yield _ready(*ahead)
        ahead = copied
    if ahead is not None:
        yield _ready(*ahead)


def _ready(images: torch.Tensor, copied: torch.cuda.Event) -> torch.Tensor:
    """Images that another stream copies, for this one to use: it waits for the copy, and its memory for its use."""
    stream = torch.cuda.current_stream(images.device)
    stream.wait_event(copied)
    images.record_stream(stream)
    return images


class _Files:
    """Images on disk, read ahead by worker processes that live as long as the loader."""

    def __init__(self, split: FileSplit, device: torch.device, num_readers: int) -> None:
        self.device, self.side = device, _side_stream(device)
        self.chunks = _Chunks()
        self.loader = DataLoader(
            _Reader(split),
            batch_size=None,
            sampler=self.chunks,
            num_workers=num_readers,
            pin_memory=device.type == "cuda",
            # Spawned, not forked: a fork keeps the job's lease and CUDA's state, and is unsafe beside threads.
            multiprocessing_context="spawn" if num_readers else None,
            persistent_workers=num_readers > 0,
            worker_init_fn=_leave_interrupts_to_the_job,
            generator=torch.Generator(),  # else it draws from the global one
        )

    def read(self, order: torch.Tensor, at: torch.Tensor, size: int) -> Iterator[torch.Tensor]:  # noqa: ARG002
        """As `_Memory.read`. Raises DataError where a file cannot be read."""
        self.chunks.order, self.chunks.size = order, size
        chunks = self._decoded()
        return _copied_ahead(chunks, self.side) if self.device.type == "cuda" else chunks

    def _decoded(self) -> Iterator[torch.Tensor]:
        for images in self.loader:
            if isinstance(images, str):
                raise DataError(images)
            yield images


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
