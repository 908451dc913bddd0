"""A split of a dataset: images and their labels, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Split:
    """A split in memory. images: uint8 (N, H, W, C), contiguous. labels: int64 (N,).

    files: what `file_of` returns of each image; None where images are no files.
    """

    images: torch.Tensor
    labels: torch.Tensor
    files: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        return self.images.shape[1]

    @property
    def channels(self) -> int:
        return self.images.shape[3]

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 (B, H, W, C)."""
        return self.images[torch.as_tensor(indices, dtype=torch.int64)]

    def file_of(self, index: int) -> str | None:
        """Returns the file of an image as its folder of images names it, `test/cat/7.png`; None where it has none."""
        return None if self.files is None else self.files[index]


@dataclass(frozen=True)
class FileSplit:
    """A split whose images stay on disk, being too large for memory. labels: int64 (N,)."""

    files: tuple[Path, ...]
    labels: torch.Tensor
    image_size: int

    def __len__(self) -> int:
        return len(self.files)

    @property
    def channels(self) -> int:
        return 3

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 (B, image_size, image_size, 3). Raises DataError if a file has gone or is damaged since the start."""
        from pipeline.data.image_file import read_image

        batch = torch.empty(len(indices), self.image_size, self.image_size, 3, dtype=torch.uint8)
        pixels = batch.numpy()
        for row, index in enumerate(indices):
            pixels[row] = read_image(self.files[int(index)], self.image_size)
        return batch

    def file_of(self, index: int) -> str:
        """Returns the file of an image as its folder of images names it: `test/cat/7.png`."""
        return within_folder(self.files[index])


def within_folder(file: Path) -> str:
    """Returns split, class and name of a file in a folder of images: `test/cat/7.png`."""
    return "/".join(file.parts[-3:])
