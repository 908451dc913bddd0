"""A folder of one's own images: every format means the same pixels, and whatever is wrong with it is named."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data import dataset, image_folder
from pipeline.data.dataset import Dataset
from pipeline.data.splits import FileSplit, Split
from pipeline.errors import DataError

RED, BLUE = (250, 0, 0), (0, 0, 250)


def load(
    root: Path,
    image_size: int | None = None,
    *,
    on_corrupt: str = "fail",
    in_memory: str = "auto",
    split: dict[str, float] | None = None,
) -> Dataset:
    options = {"path": str(root), "on_corrupt": on_corrupt, "in_memory": in_memory}
    options |= {} if split is None else {"split": {"val": 0.0, "test": 0.0, "seed": 0, **split}}
    datasets = root.parent / "datasets"
    return dataset.load(
        "image_folder", image_folder.read, options, image_size=image_size, datasets=datasets, log=[].append
    )


def save(file: Path, image: Image.Image, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)
    return file


def plain(colour: tuple[int, ...] = RED, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two red cats and two blue dogs to learn from and one of each to test on, 6 x 6 pixels."""
    root = tmp_path / "my 'pets'"
    for split, count in (("train", 2), ("test", 1)):
        for name, colour in (("dog", BLUE), ("cat", RED)):
            for index in range(count):
                save(root / split / name / f"{index}.png", plain(colour))
    return root


def the_image(root: Path, image_size: int | None = None) -> np.ndarray:
    """train/cat's first image, as decoded."""
    train = load(root, image_size).train
    assert isinstance(train, Split)
    return train.images[0].numpy()


def test_classes_and_images_are_in_the_order_of_their_names(pets: Path) -> None:
    loaded = load(pets)
    assert loaded.classes == ("cat", "dog")
    assert loaded.train.labels.tolist() == [0, 0, 1, 1]
    assert loaded.test.labels.tolist() == [0, 1]
    assert isinstance(loaded.train, Split)
    assert [tuple(image[0, 0].tolist()) for image in loaded.train.images] == [RED, RED, BLUE, BLUE]


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_each_image_has_the_name_of_its_file(pets: Path, in_memory: str) -> None:
    """From the cache too, and whatever a file is called."""
    save(pets / "test" / "cat" / "1.png", plain()).rename(pets / "test" / "cat" / "1 \udcff\n.png")
    (pets / "test" / "dog" / "0.png").write_bytes(b"damaged")
    save(pets / "test" / "dog" / "1.png", plain())
    for _ in range(2):
        loaded = load(pets, on_corrupt="skip", in_memory=in_memory)
        names = [loaded.test.file_of(index) for index in range(len(loaded.test))]
        assert names == ["test/cat/0.png", "test/cat/1 \udcff\n.png", "test/dog/1.png"]
        assert loaded.train.file_of(3) == "train/dog/1.png"


def test_what_desktops_leave_behind_is_passed_over(pets: Path) -> None:
    for litter in ("train/.DS_Store", "train/cat/Thumbs.db", "test/cat/._0.png", "train/__MACOSX/x"):
        (pets / litter).parent.mkdir(exist_ok=True)
        (pets / litter).write_bytes(b"litter")
    loaded = load(pets)
    assert (len(loaded.train), loaded.notes) == (4, ())


def test_what_is_not_read_is_told(pets: Path) -> None:
    save(pets / "train" / "cat" / "kittens" / "0.png", plain())
    (pets / "train" / "labels.csv").write_text("")
    loaded = load(pets)
    assert len(loaded.train) == 4
    assert [note for note in loaded.notes if "labels.csv" in note]
    assert [note for note in loaded.notes if "kittens" in note]


# What a file's pixels mean


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (plain((200,), mode="L"), (200, 200, 200)),
        (plain((1,), mode="1"), (255, 255, 255)),
        (plain(RED).convert("P", palette=Image.Palette.ADAPTIVE), RED),
        (plain((*RED, 255), mode="RGBA"), RED),
        (plain((250, 100, 50, 0), mode="RGBA"), (0, 0, 0)),
        (plain((100, 0), mode="LA"), (0, 0, 0)),
        (Image.fromarray(np.full((6, 6), 257 * 200, np.uint16)), (200, 200, 200)),
        (Image.fromarray(np.full((6, 6), 65_535, np.uint16)), (255, 255, 255)),
    ],
    ids=["grey", "black-and-white", "palette", "opaque", "transparent", "transparent-grey", "16-bit", "16-bit-white"],
)
def test_a_png_of_any_kind_becomes_rgb(pets: Path, image: Image.Image, expected: tuple[int, ...]) -> None:
    save(pets / "train" / "cat" / "0.png", image)
    assert np.unique(the_image(pets).reshape(-1, 3), axis=0).tolist() == [list(expected)]


def test_a_transparent_palette_colour_is_laid_over_black(pets: Path) -> None:
    save(pets / "train" / "cat" / "0.png", plain((3,), mode="P"), transparency=3)
    assert the_image(pets).max() == 0


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "ppm", "tiff", "webp"])
def test_formats_are_told_by_their_content(pets: Path, suffix: str) -> None:
    (pets / "train" / "cat" / "0.png").unlink()
    save(pets / "train" / "cat" / f"0.{suffix}", plain()).rename(pets / "train" / "cat" / "0")
    assert np.abs(the_image(pets).astype(int) - RED).max() <= 8  # JPEG and WebP lose a little


def test_a_cmyk_jpeg_becomes_rgb(pets: Path) -> None:
    save(pets / "train" / "cat" / "0.jpg", plain().convert("CMYK"))
    (pets / "train" / "cat" / "0.png").unlink()
    assert np.abs(the_image(pets).astype(int) - RED).max() <= 8


def test_an_image_is_turned_as_its_camera_was(pets: Path) -> None:
    lying = Image.new("RGB", (6, 6))
    lying.paste(RED, (0, 0, 6, 1))  # a red row on top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    save(pets / "train" / "cat" / "0.png", lying, exif=exif)
    assert (the_image(pets)[:, 5] == RED).all()
    assert (the_image(pets)[:, :5] == 0).all()


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_with_a_size_the_centre_square_is_kept(pets: Path, size: tuple[int, int]) -> None:
    image = plain(BLUE, size)
    image.paste(RED, ((size[0] - 20) // 2, (size[1] - 20) // 2, (size[0] + 20) // 2, (size[1] + 20) // 2))
    save(pets / "train" / "cat" / "0.png", image)
    pixels = the_image(pets, 10)
    assert pixels.shape == (10, 10, 3)
    assert (pixels[1:-1, 1:-1] == RED).all()


def test_large_jpegs_shrink_to_what_exact_resizing_gives(pets: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (640, 640, 3))
    (pets / "train" / "cat" / "0.png").unlink()
    file = save(pets / "train" / "cat" / "0.jpg", Image.fromarray(np.ascontiguousarray(ramp)), quality=95)
    with Image.open(file) as image:
        exact = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(the_image(pets, 16) - exact).max() <= 4


# What can be wrong with a folder


def test_a_missing_folder_is_named_with_the_nearest_one(pets: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*my 'pet'; did you mean 'my 'pets''\?"):
        load(pets.with_name("my 'pet'"))


@pytest.mark.parametrize(("wrong", "right"), [("trian", "train"), ("testing", "test"), ("Training", "train")])
def test_a_folder_without_both_splits_is_told_what_is_expected(pets: Path, wrong: str, right: str) -> None:
    (pets / right).rename(pets / wrong)
    with pytest.raises(DataError, match=rf"no folder '{right}'; did you mean '{wrong}'") as caught:
        load(pets)
    assert f"expected: {pets}/train/<class>/<images>" in str(caught.value)
    assert "there is: " in str(caught.value)


def test_a_folder_may_have_val_beside_test_or_in_its_place(pets: Path) -> None:
    shutil.copytree(pets / "test", pets / "val")
    both = load(pets)
    assert both.sizes == {"train": 4, "val": 2, "test": 2}
    assert (both.held_out_name, both.held_out) == ("val", both.val)
    shutil.rmtree(pets / "test")
    alone = load(pets)
    assert alone.sizes == {"train": 4, "val": 2}
    assert alone.test is None
    assert len({both.fingerprint, alone.fingerprint}) == 2


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Thirty red cats and thirty blue dogs, each another one, in folders that are the classes."""
    root = tmp_path / "flat"
    for number in range(30):
        save(root / "cat" / f"{number}.png", plain((100 + number, 0, 0)))
        save(root / "dog" / f"{number}.png", plain((0, 0, 100 + number)))
    return root


def colours(split: Split | FileSplit | None) -> set[tuple[int, ...]]:
    assert split is not None
    return {tuple(image[0, 0].tolist()) for image in split.read(range(len(split)))}


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_folders_that_are_classes_are_split_by_shares_and_a_new_image_moves_no_other(
    flat: Path, in_memory: str
) -> None:
    before = load(flat, split={"val": 0.2, "test": 0.2}, in_memory=in_memory)
    assert sum(before.sizes.values()) == 60
    assert min(before.sizes["val"], before.sizes["test"]) > 4
    save(flat / "cat" / "a new one.png", plain((7, 0, 0)))
    after = load(flat, split={"val": 0.2, "test": 0.2}, in_memory=in_memory)
    for name in ("train", "val", "test"):
        assert colours(getattr(after, name)) - {(7, 0, 0)} == colours(getattr(before, name))
    other = load(flat, split={"val": 0.2, "test": 0.2, "seed": 1}, in_memory=in_memory)
    assert colours(other.val) != colours(before.val)


def test_shares_take_from_the_training_images_what_there_is_no_folder_for(pets: Path) -> None:
    loaded = load(pets, split={"val": 0.3})
    assert loaded.sizes == {"train": 2, "val": 2, "test": 2}
    with pytest.raises(DataError, match=r"has a folder 'test' already; leave data\.split\.test out"):
        load(pets, split={"test": 0.3})


def test_what_cannot_be_read_is_skipped_with_shares_too(flat: Path) -> None:
    (flat / "cat" / "link.png").symlink_to("/nowhere")
    (flat / "cat" / "text.png").write_text("no image")
    os.mkfifo(flat / "dog" / "pipe.png")
    shares = {"val": 0.2, "test": 0.2}
    with pytest.raises(DataError, match=r"3 files of .* cannot be read"):
        load(flat, split=shares)
    loaded = load(flat, split=shares, on_corrupt="skip")
    assert sum(loaded.sizes.values()) == 60


def test_folders_that_are_classes_without_shares_are_told_how(flat: Path) -> None:
    with pytest.raises(DataError, match=r"if its folders are the classes, set data\.split: \{val: 0\.1, test: 0\.1\}"):
        load(flat)


def test_an_empty_folder_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is: nothing"):
        load(tmp_path)


def test_a_split_without_classes_is_told_so(pets: Path) -> None:
    for name in ("cat", "dog"):
        (pets / "train" / name).rename(pets / name)
    save(pets / "train" / "0.png", plain())
    with pytest.raises(DataError, match=r"train has no folders, one a class; there is: 0\.png"):
        load(pets)


@pytest.mark.parametrize(("extra", "lacking"), [("train", "test"), ("test", "train")])
def test_a_class_of_one_split_alone_is_named(pets: Path, extra: str, lacking: str) -> None:
    save(pets / extra / "bird" / "0.png", plain())
    with pytest.raises(DataError, match=rf"differ: {lacking} has no folder for bird"):
        load(pets)


def test_a_class_without_images_is_named(pets: Path) -> None:
    (pets / "test" / "dog" / "0.png").unlink()
    with pytest.raises(DataError, match="test/dog has no images"):
        load(pets)


@pytest.mark.parametrize(("size", "why"), [((8, 8), "the first one has 6 x 6"), ((6, 5), "it is not square")])
def test_without_a_size_the_first_image_that_differs_is_named(pets: Path, size: tuple[int, int], why: str) -> None:
    for file in ("cat/1.png", "dog/0.png"):
        save(pets / "train" / file, plain(size=size))
    width, height = size
    with pytest.raises(DataError, match=rf"cat/1\.png has {width} x {height} pixels and {why}: set data\.image_size"):
        load(pets)
    assert load(pets, 6).train.image_size == 6


# Damaged files


@pytest.fixture
def damaged(pets: Path) -> Path:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    cat = pets / "train" / "cat"
    whole = save(cat / "cut.jpg", noise)
    os.truncate(whole, whole.stat().st_size // 2)
    broken = save(cat / "broken.png", noise)
    content = bytearray(broken.read_bytes())
    content[200:300] = bytes(100)
    broken.write_bytes(content)
    (cat / "notes.txt").write_text("not an image")
    (cat / "empty.png").write_bytes(b"")
    (cat / "nowhere.png").symlink_to(pets / "gone.png")
    return pets


NAMES = ("broken.png", "cut.jpg", "empty.png", "notes.txt", "nowhere.png")


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_damaged_files_are_all_named(damaged: Path, in_memory: str) -> None:
    with pytest.raises(DataError, match=r"5 files of .* cannot be read.*data\.on_corrupt") as caught:
        load(damaged, 6, in_memory=in_memory)
    assert [name for name in NAMES if f"train/cat/{name}: " not in str(caught.value)] == []


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_damaged_files_are_left_out_and_named_if_that_is_asked_for(damaged: Path, in_memory: str) -> None:
    for _ in ("decoded", "from the cache"):
        loaded = load(damaged, 6, on_corrupt="skip", in_memory=in_memory)
        assert loaded.train.labels.tolist() == [0, 0, 1, 1]
        (note,) = [note for note in loaded.notes if "left out" in note]
        assert [name for name in NAMES if name not in note] == []


def test_leaving_out_does_not_carry_over_to_a_job_that_asks_to_fail(damaged: Path) -> None:
    load(damaged, 6, on_corrupt="skip")
    with pytest.raises(DataError, match="5 files"):
        load(damaged, 6)


def pipe(file: Path) -> None:
    os.mkfifo(file)


def link_to_a_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def link_to_itself(file: Path) -> None:
    file.symlink_to(file.name)


def broken_avif(file: Path) -> None:
    save(file, plain(), format="AVIF")
    file.write_bytes(file.read_bytes().replace(b"iloc", b"skip"))


def program(file: Path) -> None:
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n%%EOF\n")


def endless_jpeg(file: Path) -> None:
    """Of some kilobytes; its last scan is there again and again."""
    content = save(file, plain(size=(64, 64)), progressive=True).read_bytes()
    file.write_bytes(content[:-2] + content[content.rindex(b"\xff\xda") : -2] * 100 + content[-2:])


@pytest.mark.parametrize("put", [pipe, link_to_a_device, link_to_itself, broken_avif, program, endless_jpeg])
@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_what_is_hostile_is_named_as_what_is_damaged(
    put: Callable[[Path], None], in_memory: str, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would have Ghostscript run a program, if there is a Ghostscript."""
    (tmp_path / "gs").write_text("#!/bin/sh\ntouch ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    file = pets / "train" / "cat" / "x.jpg"
    put(file)
    with pytest.raises(DataError, match=rf"1 file of .*\n  {re.escape(str(file))}: "):
        load(pets, 6, in_memory=in_memory)
    assert len(load(pets, 6, in_memory=in_memory, on_corrupt="skip").train) == 4
    assert not (tmp_path / "ran").exists()


def test_a_link_to_itself_beside_the_classes_is_told(pets: Path) -> None:
    link_to_itself(pets / "train" / "loop")
    link_to_itself(pets / "loop")
    assert any("are not read: loop" in note for note in load(pets).notes)


def test_a_path_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    for path in ("x" * 300, "~nobody-here/pets"):
        with pytest.raises(DataError, match=path):
            image_folder.resolve(path, tmp_path)


def test_of_many_damaged_files_ten_are_named(pets: Path) -> None:
    for index in range(12):
        (pets / "train" / "dog" / f"bad-{index:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)12 files.*bad-09\.png.*and 2 more$") as caught:
        load(pets)
    assert "bad-10.png" not in str(caught.value)


def test_leaving_out_may_not_empty_a_class(pets: Path) -> None:
    (pets / "test" / "dog" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of .*/test can be read for dog"):
        load(pets, on_corrupt="skip")


def test_a_decompression_bomb_is_an_unreadable_file(pets: Path) -> None:
    save(pets / "train" / "dog" / "bomb.png", Image.new("1", (20_000, 10_000)))
    with pytest.raises(DataError, match=r"(?s)1 file .*bomb\.png: .*decompression bomb"):
        load(pets, 6)


# Images that stay on disk


def test_images_on_disk_are_the_same_as_in_memory(pets: Path) -> None:
    save(pets / "train" / "cat" / "1.png", plain((10, 20, 30), (9, 7)))
    in_memory, on_disk = load(pets, 5, in_memory="always"), load(pets, 5, in_memory="never")
    assert isinstance(in_memory.train, Split)
    assert isinstance(on_disk.train, FileSplit)
    assert torch.equal(on_disk.train.read([3, 1, 0]), in_memory.train.images[[3, 1, 0]])
    assert torch.equal(on_disk.train.labels, in_memory.train.labels)
    assert (on_disk.mean, on_disk.std) == (in_memory.mean, in_memory.std)
    assert load(pets, 5, in_memory="never").train.files == on_disk.train.files


def test_the_fingerprint_of_files_changes_when_one_of_them_does(pets: Path) -> None:
    before = load(pets, in_memory="never").fingerprint
    assert load(pets, in_memory="never").fingerprint == before
    os.utime(pets / "train" / "cat" / "0.png", ns=(1, 1))
    assert load(pets, in_memory="never").fingerprint != before


def test_the_state_of_a_folder_is_what_caches_were_kept_by(pets: Path) -> None:
    """With another one, everybody's images would be decoded anew."""
    (pets / "train" / "cat" / os.fsdecode(b"not UTF-8 \xff.png")).write_bytes(b"1")
    (pets / "train" / "cat" / "ünï 'code'\n.png").write_bytes(b"22")
    (pets / "train" / "dog" / "leads nowhere.png").symlink_to("nothing")
    options: dict[str, Any] = {"path": f"{pets}/./", "on_corrupt": "skip", "in_memory": "auto"}
    found = image_folder.read(pets, image_size=None, log=[].append, **options)
    folders = [pets / split / name for split in ("train", "test") for name in ("cat", "dog")]
    digest = hashlib.sha256()
    for file in [file for folder in folders for file in sorted(folder.iterdir())]:
        status = file.stat() if file.exists() else file.lstat()
        digest.update(b"%s\0%d\0%d\n" % (os.fsencode(file), status.st_size, status.st_mtime_ns))
    assert found.state is not None
    assert found.state() == digest.hexdigest()


def test_a_file_that_goes_while_training_is_an_error_that_names_it(pets: Path) -> None:
    train = load(pets, in_memory="never").train
    assert isinstance(train, FileSplit)
    (pets / "train" / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match=r"train/cat/0\.png: .*No such file"):
        train.read([0])


def test_a_changed_image_is_read_again(pets: Path) -> None:
    first = load(pets)
    save(pets / "train" / "cat" / "0.png", plain(BLUE))
    assert load(pets).fingerprint != first.fingerprint
    assert tuple(the_image(pets)[0, 0]) == BLUE
