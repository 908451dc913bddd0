"""The dataset that a job names, read as the job asks for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from pipeline.data import dataset as datasets
from pipeline.data import own_dataset
from pipeline.data.dataset import Dataset
from pipeline.jobfile.spec import Spec
from pipeline.training import parts, pretrained


def load_dataset(
    spec: Spec, folder: Path, *, log: Callable[[str], None], before_decoding: Callable[[], object] = lambda: None
) -> Dataset:
    """Returns the dataset that a spec names. folder: of the home's datasets.

    before_decoding: is called where the images are not in the cache, and reading them may take minutes.
    Raises DataError, or OwnCodeError where the user's own code reads it.
    """
    data = spec.data
    image_size = data.image_size
    if spec.image_size is None and (weights := pretrained.wanted(spec)):
        image_size = weights.size
        log(f"images are made {image_size} pixels a side, as those were that {weights.name} was learned on")
    if data.entry.own is not None:
        before_decoding()  # and before the user's code runs, which may set variables of the environment
    with parts.telling_where(data.entry, "as a dataset: "):
        reader = data.entry.load()
        if data.entry.own is not None:
            reader = functools.partial(own_dataset.read, data.entry.given, reader)
        return datasets.load(
            data.name,
            reader,
            data.options(),
            image_size=image_size,
            datasets=folder,
            log=log,
            val=data.val,
            before_decoding=before_decoding,
        )
