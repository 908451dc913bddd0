"""The loader gives each image once an epoch, in an order and with changes that seed, epoch and batch decide alone."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipeline.data import draws
from pipeline.data import loader as loader_module
from pipeline.data.augment import crop, cutout, flip
from pipeline.data.loader import Loader
from pipeline.data.normalization import Normalization
from pipeline.data.splits import FileSplit, Split
from pipeline.errors import DataError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
AUGMENT = (functools.partial(crop, padding=2), flip, functools.partial(cutout, size=3))


def split(num: int = 50, size: int = 8, channels: int = 3) -> Split:
    """Random images, numbered by their labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num, size, size, channels), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(num))


def make(data: Split | FileSplit, **changes: Any) -> Loader:
    options: dict[str, Any] = {
        "batch_size": 4,
        "device": torch.device("cpu"),
        "normalization": Normalization(MEAN[: data.channels], STD[: data.channels]),
        "dtype": torch.float32,
        "augment": AUGMENT,
        "seed": 3,
        "shuffle": True,
    }
    return Loader(data, **(options | changes))


def labels(batches: Any) -> list[int]:
    return torch.cat([labels for _, labels in batches]).tolist()


def assert_same(batches: Any, expected: Any) -> None:
    for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches of four images of 8 x 8 x 3 a chunk."""
    monkeypatch.setitem(loader_module.CHUNK_VALUES, "cpu", 3 * 4 * 8 * 8 * 3)
    monkeypatch.setattr(loader_module, "READ_VALUES", 3 * 4 * 8 * 8 * 3)


@pytest.fixture
def files(tmp_path: Path) -> FileSplit:
    """The images of `split()` as files."""
    data = split()
    paths = tuple(tmp_path / f"{number}.png" for number in range(len(data)))
    for path, image in zip(paths, data.images, strict=True):
        Image.fromarray(image.numpy()).save(path)
    return FileSplit(paths, data.labels, image_size=8)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("batch_size", [1, 4, 8, 50, 64])
def test_every_image_comes_once_an_epoch(batch_size: int) -> None:
    loader = make(split(), batch_size=batch_size)
    batches = list(loader.epoch(0))
    assert len(batches) == loader.num_batches
    assert all(len(labels) == batch_size for _, labels in batches[:-1])
    assert sorted(labels(batches)) == list(range(50))


@pytest.mark.usefixtures("small_chunks")
def test_no_batch_of_a_single_image_is_trained_on_and_another_one_is_left_out_each_epoch() -> None:
    loader = make(split(), batch_size=7)
    seen = [labels(loader.epoch(epoch)) for epoch in range(5)]
    assert all(len(epoch) == len(set(epoch)) == 49 for epoch in seen)
    assert len({sum(range(50)) - sum(epoch) for epoch in seen}) > 1
    assert len(labels(make(split(), batch_size=7, shuffle=False).epoch(0))) == 50


def test_every_epoch_and_seed_has_its_own_order() -> None:
    loader = make(split())
    orders = [labels(loader.epoch(0)), labels(loader.epoch(1)), labels(make(split(), seed=4).epoch(0))]
    assert len({tuple(order) for order in orders}) == 3
    assert labels(loader.epoch(0)) == orders[0]


def test_without_shuffling_the_order_is_that_of_the_split() -> None:
    assert labels(make(split(), shuffle=False).epoch(5)) == list(range(50))


@pytest.mark.usefixtures("small_chunks")
def test_an_epoch_can_begin_at_any_batch_and_gives_the_same_bits() -> None:
    whole = list(make(split()).epoch(2))
    for first in range(len(whole) + 1):
        assert_same(make(split()).epoch(2, first=first), whole[first:])


@pytest.mark.usefixtures("small_chunks")
def test_images_are_changed_anew_in_every_chunk_and_epoch() -> None:
    loader = make(Split(split(1).images.repeat(48, 1, 1, 1), torch.arange(48)))
    seen = {image.numpy().tobytes() for epoch in range(2) for images, _ in loader.epoch(epoch) for image in images}
    assert len(seen) > 90  # of 96; 25 crops, flipped or not, each with one of 64 squares


def test_chunks_of_any_size_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a job is the same on a CPU and on a GPU, which prepare more and fewer batches at a time."""
    expected = list(make(split()).epoch(1))
    for batches in (1, 2, 5):
        monkeypatch.setitem(loader_module.CHUNK_VALUES, "cpu", batches * 4 * 8 * 8 * 3)
        assert_same(make(split()).epoch(1), expected)


def test_torchs_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    expected = list(make(split()).epoch(0))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert_same(make(split()).epoch(0), expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalized_by_channel(channels: int) -> None:
    data = split(channels=channels)
    images = torch.cat([images for images, _ in make(data, augment=(), shuffle=False).epoch(0)])
    mean, std = (torch.tensor(values[:channels])[:, None, None] for values in (MEAN, STD))
    expected = (data.images.permute(0, 3, 1, 2) / 255 - mean) / std
    torch.testing.assert_close(images, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_in_half_precision_are_rounded_once(dtype: torch.dtype) -> None:
    exact = make(split()).epoch(0)
    for (images, _), (expected, _) in zip(make(split(), dtype=dtype).epoch(0), exact, strict=True):
        assert images.dtype == dtype
        assert torch.equal(images, expected.to(dtype))


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_channels_last(channels: int) -> None:
    for images, labels in make(split(channels=channels)).epoch(0):
        assert images.shape == (len(labels), channels, 8, 8)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64


def test_what_is_cut_out_is_nearly_zero_once_normalized() -> None:
    [(images, _)] = make(split(), batch_size=50, augment=[functools.partial(cutout, size=99)]).epoch(0)
    assert images.abs().max() <= 0.5 / 255 / min(STD) + 1e-6  # half a grey level


@pytest.mark.usefixtures("small_chunks")
def test_files_give_the_same_batches_as_memory(files: FileSplit) -> None:
    loader = make(files, num_readers=0)
    for epoch, first in ((0, 0), (1, 0), (1, 5), (1, 13)):
        assert_same(loader.epoch(epoch, first), make(split()).epoch(epoch, first))


@pytest.mark.usefixtures("small_chunks")
def test_files_are_read_by_processes_in_the_same_order_even_after_an_epoch_left_early(files: FileSplit) -> None:
    before = torch.get_rng_state()
    loader = make(files, num_readers=2)
    next(loader.epoch(0))
    for epoch, first in ((0, 0), (1, 4)):
        assert_same(loader.epoch(epoch, first), make(split()).epoch(epoch, first))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("is_in_memory", [True, False])
def test_the_first_images_can_be_looked_at_while_an_epoch_is_under_way(is_in_memory: bool, files: FileSplit) -> None:
    loader = make(split() if is_in_memory else files, num_readers=1)
    whole = list(make(split()).epoch(0))
    under_way = loader.epoch(0)
    assert_same([next(under_way)], whole[:1])
    assert torch.equal(loader.peek(3), whole[0][0][:3])
    assert_same(under_way, whole[1:])


ALTERNATE = (functools.partial(flip, alternate=True), functools.partial(crop, padding=2))


def sides(batches: Any, data: Split) -> dict[int, set[bool]]:
    """Of each image, by its number, whether it came mirrored: one answer for an image, however often it came."""
    seen: dict[int, set[bool]] = {}
    for images, labels in batches:
        for image, label in zip(images, labels.tolist(), strict=True):
            pixels = (image.permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN)).mul(255).round().byte()
            as_it_is, mirrored = (torch.equal(pixels, one) for one in (data.images[label], data.images[label].flip(1)))
            assert as_it_is != mirrored
            seen.setdefault(label, set()).add(mirrored)
    return seen


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("changes", [{}, {"balanced": True}, {"batch_size": 7}, {"drop_last": True, "batch_size": 8}])
def test_an_alternating_flip_shows_the_other_side_of_each_image_in_the_next_epoch(changes: dict[str, Any]) -> None:
    data = split()
    loader = make(data, augment=ALTERNATE[:1], **changes)
    epochs = [sides(loader.epoch(epoch), data) for epoch in range(5)]
    first = {}
    for number, epoch in enumerate(epochs):
        for image, mirrored in epoch.items():
            [is_mirrored] = mirrored
            assert first.setdefault(image, is_mirrored ^ (number % 2 == 1)) == is_mirrored ^ (number % 2 == 1)
    assert len(first) > 45
    assert 12 <= sum(first.values()) <= 38


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("balanced", [False, True])
def test_an_alternating_flip_is_the_same_from_any_batch_in_any_chunk_and_from_files(
    balanced: bool, files: FileSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"augment": ALTERNATE, "balanced": balanced}
    whole = list(make(split(), **options).epoch(3))
    for first in (1, 2, 5, len(whole) - 1):
        assert_same(make(split(), **options).epoch(3, first), whole[first:])
        assert_same(make(files, num_readers=0, **options).epoch(3, first), whole[first:])
    start = make(split(), **options)
    assert torch.equal(start.peek(4), next(start.epoch(0))[0])
    monkeypatch.setitem(loader_module.CHUNK_VALUES, "cpu", 50 * 8 * 8 * 3)
    assert_same(make(split(), **options).epoch(3), whole)


def test_two_alternating_flips_are_independent() -> None:
    data = split()
    twice = sides(make(data, augment=(ALTERNATE[0], ALTERNATE[0])).epoch(1), data)
    assert {mirrored for seen in twice.values() for mirrored in seen} == {False, True}


def test_what_is_drawn_by_other_augmentations_is_not_changed_by_an_alternating_flip() -> None:
    data = Split(torch.full((50, 8, 8, 3), 200, dtype=torch.uint8), torch.arange(50))  # of which a flip is not seen
    augment = (flip, functools.partial(crop, padding=2))
    assert_same(make(data, augment=ALTERNATE).epoch(1), make(data, augment=augment).epoch(1))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("batch_size", "num"), [(1, 50), (7, 49), (8, 48), (25, 50), (26, 26), (50, 50)])
def test_without_the_last_batch_an_epoch_has_whole_ones_alone(batch_size: int, num: int) -> None:
    loader, whole = (make(split(), batch_size=batch_size, drop_last=drop, augment=()) for drop in (True, False))
    assert (loader.num_images, loader.num_batches) == (num, num // batch_size)
    seen = [labels(loader.epoch(epoch)) for epoch in range(5)]
    assert all(len(epoch) == len(set(epoch)) == num for epoch in seen)
    assert len({tuple(sorted(epoch)) for epoch in seen}) == (1 if num == 50 else 5), "others are left out each epoch"
    assert_same(loader.epoch(2), list(whole.epoch(2))[: loader.num_batches])
    assert_same(loader.epoch(2, first=1), list(loader.epoch(2))[1:])
    assert list(loader.epoch(2, first=loader.num_batches)) == []


def test_without_the_last_batch_a_balanced_epoch_and_files_have_whole_ones_alone(files: FileSplit) -> None:
    loader = make(split(), batch_size=8, drop_last=True, balanced=True)
    assert [len(labels) for _, labels in loader.epoch(0)] == [8] * 6
    read = make(files, batch_size=8, drop_last=True, balanced=True, num_readers=0)
    assert_same(read.epoch(0), loader.epoch(0))


def test_fewer_images_than_a_batch_cannot_be_trained_on_without_the_last_one() -> None:
    expected = "nothing of 50 images to train on, as data.batch_size is 51; set data.batch_size: 50, or data.last_batch"
    with pytest.raises(DataError, match=expected):
        make(split(), batch_size=51, drop_last=True)


@pytest.mark.parametrize("num_readers", [0, 1])
def test_a_file_that_has_gone_is_named_in_one_line(files: FileSplit, num_readers: int) -> None:
    files.files[7].unlink()
    with pytest.raises(DataError, match=r"\A.*7\.png.*\Z"):
        list(make(files, num_readers=num_readers).epoch(0))


def test_a_balanced_epoch_has_as_many_images_from_all_classes_alike() -> None:
    labels = torch.tensor([0] * 9_000 + [1] * 900 + [3] * 100)  # and none of class 2
    order = draws.draw_balanced_order(0, 1, labels)
    assert order.shape == labels.shape
    counts = torch.bincount(labels[order], minlength=4).tolist()
    assert counts[2] == 0
    assert all(abs(count - 10_000 / 3) < 200 for count in (counts[0], counts[1], counts[3]))
    assert len(order[labels[order] == 3].unique()) == 100, "each image of the rare class is seen"
    assert torch.equal(order, draws.draw_balanced_order(0, 1, labels))
    assert not torch.equal(order, draws.draw_balanced_order(0, 2, labels))
