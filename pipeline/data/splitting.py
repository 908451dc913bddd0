"""Which images are held out where nobody has said it: by what is in them, so that a new image moves no other.

An image's place is a number that its content and the seed give, uniform from 0 to 1: below `test` it is a test image,
above that and below `test + val` one to choose the best epoch by, else one to train on. So each class has about these
shares, images that are the same are on the same side, and neither names nor order nor other images matter. Only where
a class would have none on a side, the image of it that is nearest to that side goes there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch

from pipeline.errors import DataError
from pipeline.wording import plural

TRAIN, VAL, TEST = range(3)


def places(contents: Iterable[bytes], *, seed: int) -> torch.Tensor:
    """Returns each image's number: float64 (N,), from 0 up to 1. contents: a digest of each."""
    key = seed.to_bytes(8, "little")
    digests = (hashlib.blake2b(content, digest_size=8, key=key).digest() for content in contents)
    return torch.tensor([int.from_bytes(digest, "little") >> 11 for digest in digests], dtype=torch.float64) * 2.0**-53


def digests_of_images(images: torch.Tensor) -> Iterable[bytes]:
    """Of each image's pixels. images: uint8 (N, H, W, C)."""
    return (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.numpy())


def sides(
    numbers: torch.Tensor, labels: torch.Tensor, classes: Sequence[str], *, val: float, test: float
) -> torch.Tensor:
    """Returns TRAIN, VAL or TEST for each image: int64 (N,). labels: int64 (N,).

    val, test: the shares, from 0 up to 1. Raises DataError where a class has too few images for all sides.
    """
    chosen = torch.full_like(labels, TRAIN)
    chosen[numbers < test + val] = VAL
    chosen[numbers < test] = TEST
    wanted = [side for side, share in ((TEST, test), (VAL, val), (TRAIN, 1.0)) if share]
    for label, name in enumerate(classes):
        of_class = (labels == label).nonzero().flatten()
        of_class = of_class[numbers[of_class].argsort(stable=True)]
        if len(of_class) < len(wanted):
            raise DataError(
                f"the class {name!r} has {plural(len(of_class), 'image')}, too few to hold some of them out"
            )
        _fill_empty(chosen, of_class, wanted)
    return chosen


def _fill_empty(chosen: torch.Tensor, of_class: torch.Tensor, wanted: Sequence[int]) -> None:
    """Gives each side an image of a class. of_class: its images, by their numbers. wanted: the sides in that order."""
    counts = [max(1, int((chosen[of_class] == side).sum())) for side in wanted]
    while sum(counts) > len(of_class):
        counts[counts.index(max(counts))] -= 1
    start = 0
    for side, count in zip(wanted, counts, strict=True):
        chosen[of_class[start : start + count]] = side
        start += count
