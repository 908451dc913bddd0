"""Ready jobs on real images, from the job file to the result; skipped where the images are not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.cli.foreground import train_here
from pipeline.home.paths import Home
from pipeline.jobfile import reading

JOBS = Path(__file__).parents[2] / "jobs"
DATA = os.environ.get("PIPELINE_TEST_DATA")
needs_data = pytest.mark.skipif(
    DATA is None, reason="PIPELINE_TEST_DATA names no folder with MNIST/ and cifar10-images/"
)


@needs_data
def test_the_tutorial_network_learns_mnist(home: Home) -> None:
    """98.5 % or better; three epochs in place of the job's ten."""
    shutil.copytree(Path(str(DATA)) / "MNIST", home.datasets / "MNIST")
    spec = reading.load(JOBS / "net_mnist.yaml", ["train.epochs=3"])
    result = train_here(home, spec, echo=print)
    assert result.outcome == "succeeded", result.why
    assert result.metrics["test/accuracy"] >= 0.985


@needs_data
def test_images_in_a_folder_are_trained_on_from_memory_and_from_disk_alike(home: Home, tmp_path: Path) -> None:
    """The same 200 real images, the same steps, whichever way they are read."""
    folder = tmp_path / "images"
    for split, number in (("train", 16), ("test", 4)):
        for of_class in sorted((Path(str(DATA)) / "cifar10-images" / split).iterdir()):
            (folder / split / of_class.name).mkdir(parents=True)
            for image in sorted(of_class.iterdir())[:number]:
                shutil.copy(image, folder / split / of_class.name)
    losses = []
    for in_memory in ("always", "never"):
        changes = [f"data.path={folder}", f"data.in_memory={in_memory}", "train.epochs=1", "train.precision=fp32"]
        spec = reading.load(JOBS / "image_folder.yaml", [*changes, "data.batch_size=32", "train.deterministic=true"])
        result = train_here(home, spec, echo=print)
        assert result.outcome == "succeeded", result.why
        losses.append(result.metrics["train/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
