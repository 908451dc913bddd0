"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels that come with the package, for quick trials.

They have no split of their own. 360 are held out, the same ones always, in each class's share: 1,437 are left.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.data.cache import Log
from pipeline.data.source import Contents, Found, Split


def read(datasets: Path, *, image_size: int | None, log: Log) -> Found:
    del datasets, image_size, log  # nothing lies on disk, `load` resizes, and nothing takes long
    return Found(_decode)


def _decode() -> Contents:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    levels = (bunch.images * (255 / 16)).round().astype("uint8")  # grey levels 0 to 16 come as floats
    images = torch.from_numpy(levels).unsqueeze(-1)
    labels = torch.from_numpy(bunch.target).long()
    kept, held_out = train_test_split(range(len(labels)), test_size=360, stratify=bunch.target, random_state=0)
    return Contents(
        train=Split(images[kept], labels[kept]),
        test=Split(images[held_out], labels[held_out]),
        classes=tuple(str(name) for name in bunch.target_names),
    )
