"""Images that are held out to choose the best epoch by: every epoch is judged by them, and the test set once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from quick import quick_spec

from pipeline.board import tags
from pipeline.board.events import read_scalars
from pipeline.home.paths import Home, RunPaths
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.results import classifier
from pipeline.results.compare import compare
from pipeline.results.report import render
from pipeline.stop import Stop
from pipeline.training import checkpoint, final_test
from pipeline.training.attempt import Attempt
from pipeline.training.engine import Engine


def trained(home: Home, spec: Spec, number: int = 1) -> tuple[Attempt, list[str]]:
    lines: list[str] = []
    frozen.save(home.run("job"), spec)
    attempt = Attempt(home, "job", number, Stop(), lines.append)
    attempt.execute()
    return attempt, lines


def curve(home: Home, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in read_scalars(home.run("job").root).get(tag, [])]


def test_the_best_epoch_is_chosen_by_val_and_tested_once_at_the_end(home: Home) -> None:
    attempt, lines = trained(home, quick_spec(epochs=4, data={"val": 0.2}))
    result = attempt.progress.latest
    val, tested = curve(home, tags.VAL_ACCURACY), curve(home, tags.TEST_ACCURACY)
    assert [step for step, _ in val] == [result.step // 4 * epoch for epoch in (1, 2, 3, 4)]
    assert [step for step, _ in tested] == [result.step]
    assert curve(home, tags.BEST_ACCURACY) == []
    assert result.metrics[tags.VAL_BEST] == pytest.approx(max(value for _, value in val))
    best = 1 + max(range(4), key=lambda epoch: val[epoch][1])
    assert f"epoch {best} was best, with val accuracy" in lines[-1]
    assert f"test accuracy {100 * result.metrics[tags.TEST_ACCURACY]:.2f} %" in lines[-1]
    assert classifier.load(home.run("job")).test_accuracy == result.metrics[tags.TEST_ACCURACY]
    assert accuracy_of(home, "best") == pytest.approx(result.metrics[tags.TEST_ACCURACY])
    sizes = json.loads(home.run("job").manifest.read_text())["dataset"]
    assert (sizes["train"] + sizes["val"], sizes["test"]) == (1437, 360)


def accuracy_of(home: Home, which: classifier.Which) -> float:
    """Of the digits' test set, by the weights of a checkpoint."""
    from pipeline.data import digits

    model = classifier.load(home.run("job"), which)
    test = digits.read(home.datasets, image_size=None, log=print).decode().test
    assert test is not None
    guesses = model.logits(test.read(range(len(test))).permute(0, 3, 1, 2) / 255).argmax(1)
    return float((guesses == test.labels).double().mean())


def test_the_best_weights_are_tested_and_not_the_last(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Best weights that know nothing, which the last ones do."""
    judge = final_test.judge_best

    def with_zeros(engine: Engine, run: RunPaths, stop: Stop, *, log: Callable[[str], None]) -> dict[str, float]:
        state = checkpoint.load(run.best)
        assert state is not None
        state["model"] = {name: torch.zeros_like(value) for name, value in state["model"].items()}
        monkeypatch.setattr(checkpoint, "load", lambda _: state)
        return judge(engine, run, stop, log=log)

    monkeypatch.setattr(final_test, "judge_best", with_zeros)
    attempt, _ = trained(home, quick_spec(epochs=3, data={"val": 0.2}))
    metrics = attempt.progress.latest.metrics
    assert metrics[tags.VAL_ACCURACY] > 0.8
    assert metrics[tags.TEST_ACCURACY] < 0.2


def test_without_val_the_best_was_chosen_on_the_test_set_and_that_is_said(home: Home) -> None:
    trained(home, quick_spec(epochs=2))
    assert len(curve(home, tags.TEST_ACCURACY)) == 2
    assert curve(home, tags.VAL_ACCURACY) == []
    assert "chosen on the test set" in render(home, home.run("job"))


def test_a_folder_with_val_and_no_test_is_judged_by_val_alone(home: Home, tmp_path: Path) -> None:
    for split, count in (("train", 8), ("val", 4)):
        for index, colour in enumerate(((200, 0, 0), (0, 0, 200))):
            for number in range(count):
                path = tmp_path / "pictures" / split / f"class {index}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), tuple(min(255, part + number) for part in colour)).save(path)
    spec = quick_spec(epochs=3, data={"name": "image_folder", "path": str(tmp_path / "pictures"), "batch_size": 4})
    attempt, lines = trained(home, spec)
    assert lines[-1].endswith("was best, with val accuracy 100.00 %")
    assert tags.TEST_ACCURACY not in attempt.progress.latest.metrics
    assert compare(home, [home.run("job")] * 2, tags.TEST_ACCURACY, say=lines.append).metric == tags.VAL_ACCURACY
    page = render(home, home.run("job"))
    assert "Best val accuracy" in page
    assert "test set" not in page


def test_a_best_checkpoint_that_has_gone_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = final_test.judge_best

    def lose_it(engine: Engine, run: RunPaths, stop: Stop, *, log: Callable[[str], None]) -> dict[str, float]:
        run.best.unlink()
        return judge(engine, run, stop, log=log)

    monkeypatch.setattr(final_test, "judge_best", lose_it)
    _, lines = trained(home, quick_spec(epochs=1, data={"val": 0.2}))
    assert "the best epoch cannot be tested" in "\n".join(lines)
    assert lines[-1].endswith("%")
    assert "succeeded: trained 1 epoch; epoch 1 was best" in lines[-1]


def test_a_job_that_was_stopped_after_its_last_epoch_is_tested_all_the_same(home: Home) -> None:
    spec = quick_spec(epochs=2, data={"val": 0.2})
    first = trained(home, spec)[0].progress.latest.metrics
    again, lines = trained(home, spec, number=2)
    assert again.progress.latest.metrics[tags.TEST_ACCURACY] == first[tags.TEST_ACCURACY]
    assert "resumed at step" in "\n".join(lines)
