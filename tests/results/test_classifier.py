"""A trained model from the folder of a run, and `pipeline predict`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from quick import quick_spec

from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split
from pipeline.errors import CheckpointError, DataError, PipelineError
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Result
from pipeline.jobfile import frozen
from pipeline.results import classifier
from pipeline.results.classifier import Classifier, find_images, load
from pipeline.stop import Stop
from pipeline.training import checkpoint, engine
from pipeline.training.attempt import Attempt
from pipeline.training.job_dataset import load_dataset

Pipeline = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """Of two epochs on the digits, with the id `digits`."""
    home = Home(tmp_path_factory.mktemp("home"))
    run = home.run("digits")
    frozen.save(run, quick_spec(epochs=2))
    assert Attempt(home, "digits", 1, Stop(), print).execute().outcome == "succeeded"
    torch.use_deterministic_algorithms(False)
    return run


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(quick_spec(), tmp_path_factory.mktemp("datasets"), log=print)


@pytest.fixture
def run(trained: RunPaths, home: Home) -> RunPaths:
    """A copy of the trained run, to damage."""
    shutil.copytree(trained.root, home.run("digits").root)
    return home.run("digits")


@pytest.fixture
def three(tmp_path: Path, digits: Dataset) -> list[Path]:
    """Images of three held-out digits."""
    assert isinstance(digits.test, Split)
    files = [tmp_path / f"{place}.png" for place in range(3)]
    for file, pixels in zip(files, digits.test.images, strict=False):
        Image.fromarray(pixels[..., 0].numpy()).save(file)
    return files


def names(guesses: Any) -> list[str]:
    return [name for name, _ in guesses]


def test_images_from_files_are_classified_as_the_evaluation_did(
    trained: RunPaths, digits: Dataset, tmp_path: Path
) -> None:
    """All held-out digits as PNG files; one or two may differ where the evaluation computed in bf16."""
    assert isinstance(digits.test, Split)
    truth = {}
    for place, (pixels, label) in enumerate(zip(digits.test.images, digits.test.labels.tolist(), strict=True)):
        file = tmp_path / f"{place}.png"
        Image.fromarray(pixels[..., 0].numpy()).save(file)
        truth[file] = digits.classes[label]
    right = sum(names(guesses) == [truth[file]] for file, guesses in load(trained, "last").classify(truth, top=1))
    result = Result.read(trained.result)
    assert result is not None
    assert abs(right - result.metrics["test/accuracy"] * len(truth)) <= 2
    assert right > 300


def test_an_image_is_classified_by_the_views_that_its_job_was_evaluated_by(
    trained: RunPaths, three: list[Path]
) -> None:
    plain = load(trained)
    section = plain.spec.data.model_copy(update={"test_augment": "mirror"})
    mirrored = dataclasses.replace(plain, spec=plain.spec.model_copy(update={"data": section}))
    images = torch.stack([image for image in map(plain.read, three) if isinstance(image, torch.Tensor)])
    expected = ((plain.logits(images) + plain.logits(images.flip(3))) / 2).softmax(1)
    assert torch.equal(mirrored.logits(images), plain.logits(images)), "what is exported is the network alone"
    for (_, guesses), row in zip(mirrored.classify(three, top=10), expected, strict=True):
        assert not isinstance(guesses, DataError)
        assert [probability for _, probability in guesses] == pytest.approx(row.sort(descending=True).values.tolist())


def test_an_image_becomes_what_the_loader_gives_the_network_in_training(trained: RunPaths, three: list[Path]) -> None:
    model = load(trained)
    pixels = np.asarray(Image.open(three[0]))
    image = model.read(three[0])
    assert isinstance(image, torch.Tensor)
    assert image.shape == (1, 8, 8)
    assert image.dtype == torch.float32
    assert torch.equal((image * 255).round().to(torch.uint8)[0], torch.from_numpy(pixels.copy()))
    inside: list[torch.Tensor] = []
    handle = model.network.register_forward_pre_hook(lambda _, images: inside.append(images[0]))
    model.logits(image[None])
    handle.remove()
    dataset = json.loads(trained.manifest.read_text())["dataset"]
    assert torch.allclose(inside[0], (image - dataset["mean"][0]) / dataset["std"][0])


def test_a_coloured_image_of_any_size_is_cut_resized_and_made_grey_for_a_model_of_one_channel(
    trained: RunPaths, tmp_path: Path
) -> None:
    file = tmp_path / "wide.png"
    Image.new("RGB", (40, 20), (255, 0, 0)).save(file)
    image = load(trained).read(file)
    assert isinstance(image, torch.Tensor)
    assert image.shape == (1, 8, 8)
    assert image.unique().tolist() == [pytest.approx(76 / 255)]  # 0.299 of red


def test_probabilities_are_sorted_and_sum_to_one_and_no_more_classes_are_given_than_there_are(
    trained: RunPaths, three: list[Path]
) -> None:
    for _, guesses in load(trained).classify(three, top=99):
        assert isinstance(guesses, list)
        probabilities = [probability for _, probability in guesses]
        assert len(guesses) == 10
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)


def test_more_images_than_a_batch_holds_come_in_their_order(
    trained: RunPaths, three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.EVALUATION_IMAGES, "cpu", 2)
    files = [three[0], tmp_path / "none.png", tmp_path / "none.png", three[1], three[2], three[0]]
    model = load(trained)
    found = list(model.classify(files, top=1))
    assert [file for file, _ in found] == files
    assert [isinstance(guesses, DataError) for _, guesses in found] == [False, True, True, False, False, False]
    assert names(found[0][1]) == names(found[5][1])


def test_the_last_checkpoint_may_have_other_weights_than_the_best(run: RunPaths) -> None:
    state = checkpoint.load(run.last)
    assert state is not None
    for value in state["model"].values():
        value.zero_()
    checkpoint.save(run, state)
    images = torch.rand(1, 1, 8, 8)
    assert not load(run, "last").logits(images).any()
    assert load(run, "best").logits(images).any()


def test_the_accuracy_is_that_of_the_very_weights(run: RunPaths) -> None:
    state = checkpoint.load(run.last)
    result = Result.read(run.result)
    assert state is not None
    assert result is not None
    assert load(run, "last").test_accuracy == result.metrics["test/accuracy"]
    state["position"]["batch"] = 3
    checkpoint.save(run, state)
    assert load(run, "last").test_accuracy is None


def remove_best(run: RunPaths) -> None:
    run.best.unlink()


def remove_last(run: RunPaths) -> None:
    run.last.unlink()


def remove_all(run: RunPaths) -> None:
    shutil.rmtree(run.checkpoints)


def cut(*paths: Path) -> None:
    for path in paths:
        content = path.read_bytes()
        path.unlink()  # it may be one file with another
        path.write_bytes(content[:1000])


def cut_best(run: RunPaths) -> None:
    cut(run.best)


def cut_best_and_last(run: RunPaths) -> None:
    """As a flipped bit does where they are one file."""
    cut(run.best, run.last)


def make_best_a_folder(run: RunPaths) -> None:
    run.best.unlink()
    run.best.mkdir()


def cut_all(run: RunPaths) -> None:
    cut(run.best, run.last, run.previous)


def flip_best(run: RunPaths) -> None:
    content = bytearray(run.best.read_bytes())
    content[len(content) // 2] ^= 1
    run.best.unlink()
    run.best.write_bytes(content)


def remove_previous(run: RunPaths) -> None:
    run.previous.unlink()


def age_the_manifest(run: RunPaths) -> None:
    manifest = json.loads(run.manifest.read_text())
    del manifest["dataset"]["classes"]
    run.manifest.write_text(json.dumps(manifest))


def remove_a_mean(run: RunPaths) -> None:
    manifest = json.loads(run.manifest.read_text())
    manifest["dataset"]["mean"] = []
    run.manifest.write_text(json.dumps(manifest))


def cut_the_manifest(run: RunPaths) -> None:
    run.manifest.write_text(run.manifest.read_text()[:100])


def change_the_model(run: RunPaths) -> None:
    run.spec.write_text(run.spec.read_text().replace("name: cnn_bn", "name: vgg\n  widths: [4, M]"))


def break_the_spec(run: RunPaths) -> None:
    run.spec.write_text(run.spec.read_text().replace("name: cnn_bn", "name: alexnet"))


@pytest.mark.parametrize(
    ("damage", "which", "said"),
    [
        (
            remove_best,
            "best",
            r"digits: there is no best checkpoint: .* yet; --checkpoint last or previous takes",
        ),
        (remove_last, "last", r"digits: there is no last checkpoint: .* removed; --checkpoint best or previous takes"),
        (remove_previous, "previous", r"digits: there is no previous checkpoint: .*; --checkpoint best or last takes"),
        (remove_all, "best", r"digits: there is no trained model in .*; pipeline show digits"),
        (cut_best, "best", r"best\.pt: is damaged; --checkpoint last or previous takes another one"),
        (flip_best, "best", r"best\.pt: is damaged; --checkpoint last or previous takes another one"),
        (cut_best_and_last, "best", r"best\.pt: is damaged; --checkpoint previous takes another one"),
        (make_best_a_folder, "best", r"best\.pt: is not a regular file; --checkpoint last or previous"),
        (cut_all, "best", r"best\.pt: is damaged; train it again: pipeline submit .*spec\.yaml"),
        (
            age_the_manifest,
            "best",
            r"manifest\.json: does not say which classes .* train it again",
        ),
        (remove_a_mean, "best", r"manifest\.json: does not say which classes"),
        (cut_the_manifest, "best", r"manifest\.json: does not say which classes"),
        (change_the_model, "best", r"best\.pt: does not fit the model of .*spec\.yaml"),
        (break_the_spec, "best", r"spec\.yaml: this version does not take it; pipeline validate"),
    ],
)
def test_what_is_missing_or_damaged_is_named_with_what_to_do(
    run: RunPaths, damage: Callable[[RunPaths], None], which: classifier.Which, said: str
) -> None:
    damage(run)
    with pytest.raises(PipelineError, match=said):
        load(run, which)


def test_a_damaged_last_checkpoint_does_not_stop_the_best(run: RunPaths) -> None:
    run.last.unlink()
    run.last.write_bytes(b"no checkpoint")
    assert isinstance(load(run), Classifier)
    with pytest.raises(CheckpointError, match=r"last\.pt: is damaged"):
        load(run, "last")


@pytest.mark.parametrize("wrong", [{"metrics": "high"}, {"metrics": {"test/accuracy": []}}, {"position": None}])
def test_a_checkpoint_whose_figures_are_none_classifies_without_them(wrong: dict[str, Any], run: RunPaths) -> None:
    state = checkpoint.load(run.last)
    assert state is not None
    checkpoint.save(run, {**state, **wrong})
    accuracy = load(run, "last").test_accuracy
    assert accuracy is None or "metrics" not in wrong


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("evil"),)  # type: ignore[return-value]


@pytest.mark.parametrize("command", [["predict", "none.png"], ["export-model", "--format", "safetensors"]])
def test_a_checkpoint_from_a_stranger_runs_no_code(
    command: list[str], run: RunPaths, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run.best.unlink()
    torch.save({"format": checkpoint.FORMAT, "model": Evil()}, run.best)
    done = pipeline(command[0], "digits", *command[1:])
    assert done.returncode == 1
    assert "best.pt: is not a checkpoint of this version; --checkpoint last or previous" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.rglob("evil")) == []
    pickled = zipfile.ZipFile(run.best).read("best/data.pkl")
    assert b"evil" in pickled, "or there was nothing to refuse"


def test_of_a_folder_the_files_named_as_images_are_taken(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "inside.png").mkdir()
    files, notes, problems = find_images([tmp_path, Path("c.dat")])
    assert files == [tmp_path / "a.JPG", tmp_path / "b.png", Path("c.dat")]
    assert notes == [f"{tmp_path}: not named as images, left out: notes.txt"]
    assert problems == []


def test_a_folder_without_images_is_a_problem(tmp_path: Path) -> None:
    assert "no images in this folder" in find_images([tmp_path])[2][0]


# The command


def test_predict_prints_a_line_an_image_and_names_what_it_cannot_read(
    pipeline: Pipeline, run: RunPaths, three: list[Path]
) -> None:
    three[1].write_bytes(b"no image")
    done = pipeline("predict", run.root.name, *three, "nowhere.png", "--top", "2")
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(three[0]), str(three[2])]
    assert all(line[3] == line[6] == "%" for line in lines)
    assert done.stderr.splitlines() == [f"{three[1]}: not an image", "nowhere.png: there is no such file"]


def test_predict_prints_json_for_programs(pipeline: Pipeline, run: RunPaths, three: list[Path]) -> None:
    done = pipeline("predict", "latest", three[0], "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (entry,) = json.loads(done.stdout)
    ((_, guesses),) = load(run).classify(three[:1], top=3)
    assert entry["file"] == str(three[0])
    assert [(each["name"], pytest.approx(each["probability"])) for each in entry["classes"]] == guesses


@pytest.mark.parametrize(("arguments", "code", "said"), [(("nope", "a.png"), 2, "nope"), (("digits",), 2, "IMAGE")])
def test_predict_says_what_was_typed_wrongly(
    pipeline: Pipeline, run: RunPaths, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = pipeline("predict", *arguments)
    assert run.root.exists()
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
