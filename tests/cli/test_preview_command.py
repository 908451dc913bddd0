"""preview: an image of what the network will see, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import JobFile, Pipeline
from PIL import Image

from pipeline.home.paths import Home

DIGITS = "name: digits\nmodel: {name: cnn_bn}\ndata: {name: digits, augment: [flip]}\n"


def test_it_draws_a_png_and_prints_where_it_is(
    pipeline: Pipeline, job_file: JobFile, home: Home, tmp_path: Path
) -> None:
    job = job_file(text=DIGITS)
    done = pipeline("preview", job, "--set", "data.augment=[trivial_augment]", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "preview.png\n"), done.stderr
    with Image.open(tmp_path / "preview.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 8 * 96
    done = pipeline("preview", job, "--out", tmp_path / "other.png", cwd=tmp_path)
    assert done.stdout == f"{tmp_path / 'other.png'}\n"
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "preview.png").read_bytes()
    assert not home.runs.exists() or list(home.runs.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--out", "preview.jpg"], 2, "preview.jpg: a preview's name should end in .png"),
        (["--out", "none/preview.png"], 2, "there is no folder"),
        (["--set", "data.augment=[flop]"], 2, "'flop' is not an augmentation; did you mean 'flip'?"),
        (["--set", "data={name: image_folder, path: none}"], 1, "there is no folder"),
    ],
)
def test_what_cannot_be_drawn_is_told_and_leaves_nothing(
    pipeline: Pipeline, job_file: JobFile, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    done = pipeline("preview", job_file(text=DIGITS), *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.rglob("*.png")) == []


def test_an_augmentation_of_ones_own_is_drawn_or_its_mistake_told(
    pipeline: Pipeline, job_file: JobFile, home: Home, tmp_path: Path
) -> None:
    home.modules.mkdir(parents=True)
    module = home.modules / "mine.py"
    module.write_text("def negative(images):\n    return 255 - images\n")
    job = job_file(text=DIGITS.replace("flip", "'mine:negative'"))
    done = pipeline("preview", job, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "preview.png\n"), done.stderr
    module.write_text("def negative(images):\n    assert len(images) < 3, 'too many'\n    return 255 - images\n")
    done = pipeline("preview", job, cwd=tmp_path)
    assert done.returncode == 1
    assert "too many" in done.stderr
    assert "Traceback" not in done.stderr
