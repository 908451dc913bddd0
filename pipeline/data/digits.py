"""Handwritten digits: 1,797 images of 8 x 8 pixels in a file of this package, for quick trials without a network.

`digits.npz` holds the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998, UCI
Machine Learning Repository, doi.org/10.24432/C50P49, licence CC BY 4.0), as scikit-learn distributes it: grey levels
from 0 to 16. It has no split of its own. 360 images are held out, the same ones always, in each class's share, and
1,437 are left; the file has them in that split and order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.cache import Log
from pipeline.data.dataset import Contents, Found
from pipeline.data.splits import Split

FILE = Path(__file__).with_name("digits.npz")
MAX_LEVEL = 16


def read(datasets: Path, *, image_size: int | None, log: Log) -> Found:
    del datasets, image_size, log  # nothing lies there, `load` resizes, and nothing takes long
    return Found(_decode)


def _decode() -> Contents:
    with np.load(FILE) as arrays:
        train, test = (_split(arrays[f"{name}_levels"], arrays[f"{name}_labels"]) for name in ("train", "test"))
    return Contents(train, test, classes=tuple("0123456789"))


def _split(levels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Split:
    pixels = (levels * (255 / MAX_LEVEL)).round().astype(np.uint8)
    return Split(torch.from_numpy(pixels).unsqueeze(-1), torch.from_numpy(labels).long())
