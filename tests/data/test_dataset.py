"""Datasets are read once, kept decoded, and read again when, and only when, their files have changed."""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data import dataset, downloads
from pipeline.data.dataset import Dataset
from pipeline.data.image_folder import resolve
from pipeline.data.splits import FileSplit, Split
from pipeline.errors import DataError
from pipeline.home.paths import find_data
from pipeline.jobfile import catalog

REAL = os.environ.get("PIPELINE_TEST_DATA")
needs_real_data = pytest.mark.skipif(
    not REAL, reason="PIPELINE_TEST_DATA names no folder with MNIST and cifar10-images"
)


class Home:
    """A datasets' folder, and what was said while reading from it."""

    def __init__(self, datasets: Path) -> None:
        self.datasets = datasets
        self.said: list[str] = []

    def load(self, name: str, image_size: int | None = None, **options: object) -> Dataset:
        self.said.clear()
        reader = catalog.DATASETS[name].load()
        return dataset.load(name, reader, options, image_size=image_size, datasets=self.datasets, log=self.said.append)

    def folder(self, path: Path | str, image_size: int | None = None, **options: object) -> Dataset:
        chosen = {"path": str(path), "on_corrupt": "fail", "in_memory": "auto", **options}
        return self.load("image_folder", image_size, **chosen)

    def cached(self) -> list[Path]:
        return sorted((self.datasets / ".cache").glob("*.pt"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "data sets'")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """cat: reds, dog: blues; two to learn from and one to test on, 6 x 6 pixels."""
    root = tmp_path / "my pets"
    for split, count in (("train", 2), ("test", 1)):
        for name, colour in (("dog", (0, 0, 250)), ("cat", (250, 0, 0))):
            for index in range(count):
                save(root / split / name / f"{index}.png", Image.new("RGB", (6, 6), colour))
    return root


def save(file: Path, image: Image.Image, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)
    return file


def write_mnist(datasets: Path, *, train: int = 20, test: int = 10) -> None:
    """A small MNIST in the real one's layout: image i is all of grey level i, its label i % 10."""
    raw = datasets / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("t10k", test)):
        levels = np.arange(count, dtype=np.uint8)
        pixels = np.broadcast_to(levels[:, None, None], (count, 28, 28)).tobytes()
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + pixels)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + (levels % 10).tobytes())


# Sources


def test_digits_are_split_the_same_way_always(home: Home) -> None:
    digits = home.load("digits")
    assert digits.train.images.shape == (1437, 8, 8, 1)
    assert digits.test.images.shape == (360, 8, 8, 1)
    assert digits.fingerprint == "2170d6199ecba8a8b2802fbbdae6cbf12a39a1038164e8775f58b6ceffe01fa2"
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)
    assert torch.bincount(digits.test.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]


def test_a_split_has_pixels_and_labels_as_the_engine_relies_on(home: Home) -> None:
    write_mnist(home.datasets)
    mnist = home.load("mnist")
    for split, count in ((mnist.train, 20), (mnist.test, 10)):
        assert isinstance(split, Split)
        assert split.images.dtype == torch.uint8
        assert split.images.is_contiguous()
        assert split.labels.dtype == torch.int64
        assert (len(split), split.image_size, split.channels) == (count, 28, 1)
    assert mnist.train.images[7].unique().tolist() == [7]
    assert mnist.train.labels.tolist() == [*range(10), *range(10)]
    assert mnist.classes[3] == "3 - three"


def test_mean_and_deviation_are_those_of_the_training_pixels_in_zero_to_one(home: Home) -> None:
    write_mnist(home.datasets, train=20)
    mnist = home.load("mnist")
    levels = np.arange(20) / 255
    assert mnist.mean == pytest.approx([levels.mean()])
    assert mnist.std == pytest.approx([levels.std()])


def test_images_of_one_colour_have_a_deviation_that_can_be_divided_by(home: Home) -> None:
    write_mnist(home.datasets, train=1)
    assert home.load("mnist").std == (1 / 255,)


def test_resizing_averages_over_the_pixels_that_it_merges(home: Home) -> None:
    large, small = home.load("digits"), home.load("digits", image_size=4)
    assert small.test.images.shape == (360, 4, 4, 1)
    means = [split.images.double().mean(dim=(1, 2, 3)) for split in (large.test, small.test)]
    torch.testing.assert_close(*means, atol=8.0, rtol=0)  # of 255; taking single pixels would be off by up to 60
    assert large.fingerprint != small.fingerprint


def test_enlarging_a_flat_image_leaves_its_colour(home: Home) -> None:
    write_mnist(home.datasets)
    mnist = home.load("mnist", image_size=40)
    assert mnist.train.images.shape == (20, 40, 40, 1)
    assert mnist.train.images[19].unique().tolist() == [19]


# The cache


def test_what_was_decoded_once_is_not_decoded_again(home: Home) -> None:
    write_mnist(home.datasets)
    first = home.load("mnist")
    assert any("reading MNIST" in line for line in home.said)
    second = home.load("mnist")
    assert home.said == []
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert vars(first) | {"train": 0, "test": 0} == vars(second) | {"train": 0, "test": 0}


def test_a_cached_dataset_does_not_need_torchvision(home: Home, pets: Path) -> None:
    write_mnist(home.datasets)
    home.load("mnist")
    home.load("digits")
    home.folder(pets)
    loaded = run_python(
        LOAD + "load('mnist'); load('digits')\n"
        f"load('image_folder', path={str(pets)!r}, on_corrupt='fail', in_memory='auto')\n"
        "print([name for name in ('torchvision',) if name in sys.modules])",
        home.datasets,
    )
    assert loaded.splitlines() == ["[]"]


def test_other_files_give_another_dataset_in_the_place_of_the_first(home: Home) -> None:
    write_mnist(home.datasets, train=20)
    home.load("mnist")
    write_mnist(home.datasets, train=30)
    assert len(home.load("mnist").train) == 30
    assert len(home.cached()) == 1


def test_a_dataset_outlives_the_files_that_it_was_decoded_from(home: Home) -> None:
    write_mnist(home.datasets)
    home.load("mnist")
    shutil.rmtree(home.datasets / "MNIST")
    assert len(home.load("mnist").train) == 20


def test_sizes_and_options_are_kept_apart(home: Home, pets: Path) -> None:
    assert home.folder(pets, image_size=3).train.image_size == 3
    assert home.folder(pets, image_size=5).train.image_size == 5
    assert isinstance(home.folder(pets, image_size=3, in_memory="never").train, FileSplit)
    assert home.folder(pets, image_size=3).train.image_size == 3
    assert len(home.cached()) == 3


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def overwrite(file: Path) -> None:
    file.write_bytes(b"this is no tensor")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip_a_pixel(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[content.index(bytes([19] * 784))] ^= 1  # in the last image
    file.write_bytes(content)


def test_a_pipe_in_the_place_of_what_is_cached_is_not_waited_for(home: Home) -> None:
    write_mnist(home.datasets)
    home.load("mnist")
    (file,) = home.cached()
    for path in (file, file.with_suffix(".tmp"), home.datasets / ".cache" / "mnist.lock"):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    assert len(home.load("mnist").train) > 0
    assert file.is_file()
    assert any("going on without it" in line for line in home.said)


@pytest.mark.parametrize("damage", [cut, overwrite, empty, flip_a_pixel])
def test_a_damaged_cache_is_made_again(home: Home, damage: Callable[[Path], None]) -> None:
    write_mnist(home.datasets)
    first = home.load("mnist")
    expected = first.train.images.clone()
    (file,) = home.cached()
    del first
    damage(file)
    assert torch.equal(home.load("mnist").train.images, expected)
    assert any(str(file) in line for line in home.said)
    home.load("mnist")
    assert home.said == []


def test_a_cache_with_another_file_s_name_is_made_again(home: Home, pets: Path) -> None:
    options = {"path": str(pets), "on_corrupt": "fail", "in_memory": "always"}
    first = home.load("image_folder", **options).test.file_of(0)
    assert first is not None
    (file,) = home.cached()
    file.write_bytes(file.read_bytes().replace(first.encode(), b"#" * len(first)))
    assert home.load("image_folder", **options).test.file_of(0) == first
    assert any(str(file) in line for line in home.said)


def test_images_that_are_no_files_have_no_name(home: Home) -> None:
    write_mnist(home.datasets)
    assert [home.load("mnist").test.file_of(0) for _ in range(2)] == [None, None]


def test_a_cache_that_nobody_has_written_to_is_not_hashed_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second at the start of every job."""
    write_mnist(home.datasets)
    home.load("mnist")
    (file,) = home.cached()
    hashed: list[object] = []
    real = dataset._fingerprint
    monkeypatch.setattr(dataset, "_fingerprint", lambda *splits: (hashed.append(splits), real(*splits))[1])
    home.load("mnist")
    assert hashed == []
    os.utime(file)
    for _ in range(2):
        home.load("mnist")
    assert len(hashed) == 1, "once more, as somebody has touched it"
    file.with_suffix(".seen").write_bytes(b"\xff")
    home.load("mnist")
    assert len(hashed) == 2


def test_a_cache_that_cannot_be_written_does_not_stop_the_job(home: Home) -> None:
    home.datasets.mkdir()
    (home.datasets / ".cache").write_text("a file where the folder should be")
    assert len(home.load("digits").train) == 1437
    assert any("cannot be written" in line for line in home.said)


LOAD = """
import sys
from pathlib import Path
from pipeline.data import dataset, downloads
from pipeline.jobfile import catalog
def load(name, **options):
    say = lambda line: print(line, flush=True)
    reader = catalog.DATASETS[name].load()
    return dataset.load(name, reader, options, image_size=None, datasets=Path(sys.argv[1]), log=say)
"""


def run_python(code: str, datasets: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, str(datasets)], check=True, capture_output=True, text=True
    ).stdout


def test_of_two_processes_at_once_one_decodes_and_the_other_waits(home: Home) -> None:
    write_mnist(home.datasets)
    (home.datasets / ".cache").mkdir()
    code = LOAD + "print(load('mnist').fingerprint)"
    with (home.datasets / ".cache" / "mnist.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-c", code, str(home.datasets)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in both:
            assert process.stdout is not None
            assert "waiting" in process.stdout.readline()
    said = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(len(lines) for lines in said) == [1, 2]  # one says that it reads, both give the fingerprint
    assert said[0][-1] == said[1][-1] == home.load("mnist").fingerprint
    assert len(home.cached()) == 1
    assert list((home.datasets / ".cache").glob("*.tmp")) == []


# Downloads


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused at once, on any machine: port 9 of this one is the proxy."""
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib keeps the first one that is made, with its proxies


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("mnist", ["MNIST/raw/train-images-idx3-ubyte.gz  (md5 f68b3c2dcbeaaa9fbdd348bbdeb94873)"]),
        ("fashion_mnist", ["FashionMNIST/raw/t10k-labels-idx1-ubyte.gz  (md5 bb300cfdad3c16e7a12a480ee83cd310)"]),
        ("cifar10", ["cifar-10-python.tar.gz  (md5 c58f30108f718f92721af3b95e74349a)"]),
        ("cifar100", ["cifar-100-python.tar.gz  (md5 eb9058c3a382ffc7106e4002c42a8d85)"]),
    ],
)
def test_without_a_network_the_files_to_bring_are_named(home: Home, name: str, lines: list[str]) -> None:
    with pytest.raises(DataError, match=r"(?s)could not be downloaded.*refused.*no network") as caught:
        home.load(name)
    for line in lines:
        assert f"{home.datasets}/{line}" in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_a_file_that_was_cut_off_is_an_error_that_names_its_folder(home: Home) -> None:
    write_mnist(home.datasets)
    cut(home.datasets / "MNIST" / "raw" / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match=r"(?s)could not be .*read.*If .*MNIST/raw holds damaged files, remove it"):
        home.load("mnist")


@pytest.mark.usefixtures("no_network")
def test_labels_that_do_not_fit_the_classes_are_an_error(home: Home) -> None:
    write_mnist(home.datasets)
    labels = home.datasets / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataError, match="labels beyond its 10 classes"):
        home.load("mnist")


@needs_real_data
def test_the_real_mnist_has_the_mean_and_deviation_that_everyone_uses(home: Home) -> None:
    shutil.copytree(Path(str(REAL)) / "MNIST", home.datasets / "MNIST")
    mnist = home.load("mnist")
    assert mnist.mean == pytest.approx([0.1307], abs=5e-5)
    assert mnist.std == pytest.approx([0.3081], abs=5e-5)
    assert torch.bincount(mnist.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_real_data
def test_the_real_cifar_images_have_the_known_mean(home: Home) -> None:
    cifar = home.folder(Path(str(REAL)) / "cifar10-images")
    assert (len(cifar.train), len(cifar.test)) == (50_000, 10_000)
    assert cifar.mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-4)  # JPEG moves it a little
    assert cifar.classes[0] == "airplane"


def test_a_path_is_absolute_or_in_the_datasets_folder_or_in_the_users_home(tmp_path: Path) -> None:
    assert resolve("pets", tmp_path) == tmp_path / "pets"
    assert resolve("/data/pets", tmp_path) == Path("/data/pets")
    assert resolve("~/pets", tmp_path) == Path.home() / "pets"
    with pytest.raises(DataError, match=r"data\.path: ~nobody-of-this-name"):
        resolve("~nobody-of-this-name/pets", tmp_path)


# A further folder, that PIPELINE_DATA names


@pytest.fixture
def further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "further data"
    folder.mkdir()
    monkeypatch.setenv("PIPELINE_DATA", str(folder))
    return folder


def test_data_is_looked_for_in_the_home_first(home: Home, further: Path) -> None:
    own = home.datasets / "pets"
    assert find_data(home.datasets, Path("pets")) == own, "it is in neither"
    (further / "pets").mkdir()
    assert find_data(home.datasets, Path("pets")) == further / "pets"
    assert find_data(home.datasets, Path("/pets")) == Path("/pets")
    own.mkdir(parents=True)
    (own / "cat.png").touch()
    assert find_data(home.datasets, Path("pets")) == own


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_further_folder_only_the_home_is_looked_in(
    value: str | None, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("PIPELINE_DATA", value)
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_data(home.datasets, Path("pets")) == home.datasets / "pets"


def test_a_further_folder_is_found_from_where_the_command_runs(
    home: Home, further: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (further / "pets").mkdir()
    monkeypatch.chdir(further.parent)
    monkeypatch.setenv("PIPELINE_DATA", further.name)
    assert find_data(home.datasets, Path("pets")) == further / "pets"


@pytest.mark.usefixtures("no_network")
def test_a_further_folder_is_only_read(
    home: Home, pets: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decoded from it is kept in the home."""
    monkeypatch.setenv("PIPELINE_DATA", str(small_disk))
    shutil.copytree(pets, small_disk / "my pets")
    write_mnist(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert home.folder("my pets").classes == ("cat", "dog")
    assert len(home.load("mnist").train) == 20
    assert home.said == [f"reading MNIST from {small_disk}, downloading what is missing"]
    assert [file.name.partition("-")[0] for file in home.cached()] == ["image_folder", "mnist"]
    assert [file.name for file in home.datasets.iterdir()] == [".cache"]
    home.folder("my pets")
    assert home.said == [], "it is not decoded again"


@pytest.mark.usefixtures("no_network")
def test_cifar_is_found_in_a_further_folder(home: Home, further: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies one folder less deep than MNIST. A small one, in the real one's layout, without its checksums."""
    from torchvision.datasets import CIFAR10

    batch = {"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}
    files = {"data_batch_1": batch, "test_batch": batch, "batches.meta": {"label_names": [*"abcdefghij"]}}
    (further / CIFAR10.base_folder).mkdir()
    for name, content in files.items():
        (further / CIFAR10.base_folder / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    cifar = home.load("cifar10")
    assert (len(cifar.train), len(cifar.test), cifar.classes[2]) == (10, 10, "c")
    assert home.said == [f"reading CIFAR10 from {further}, downloading what is missing"]


def test_the_home_s_own_data_come_before_those_of_a_further_folder(home: Home, further: Path) -> None:
    write_mnist(further, train=30)
    assert len(home.load("mnist").train) == 30
    write_mnist(home.datasets, train=20)
    assert len(home.load("mnist").train) == 20
    shutil.rmtree(home.datasets / "MNIST")
    assert len(home.load("mnist").train) == 30


@pytest.mark.usefixtures("no_network")
def test_a_download_that_failed_does_not_hide_what_a_further_folder_has(home: Home, further: Path) -> None:
    with pytest.raises(DataError):
        home.load("mnist")
    write_mnist(further)
    assert len(home.load("mnist").train) == 20


def test_a_download_tells_how_far_it_is_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision writes `\\r0.1%` thousands of times."""
    told: list[str] = []
    progress = downloads.Progress(told.append)
    for percent in range(100):
        progress.write(f"\r{percent}.0%")
    assert told == []
    monkeypatch.setattr(downloads, "_TELL_EVERY_S", -1.0)
    progress.write("\r50.0%")
    assert told == ["downloading: 50.0%"]
