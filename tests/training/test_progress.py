"""The line of an epoch in the log says what is known of it."""

from __future__ import annotations

import pytest

from pipeline.home.paths import Home
from pipeline.training.moment import Moment
from pipeline.training.progress import ProgressWriter

TESTED = {"test/loss": 1.25, "test/accuracy": 0.5}
TOP5 = {"test/top5_accuracy": 0.875}
TRAINED = {"train/epoch_loss": 1.5, "train/epoch_accuracy": 0.25, "train/images_per_second": 1000.0}


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        (TESTED, "epoch 2/2  test loss 1.2500  test accuracy 50.00 %"),
        (TESTED | TOP5, "epoch 2/2  test loss 1.2500  test accuracy 50.00 %  top-5 87.50 %"),
        (
            TESTED | TOP5 | TRAINED,
            "epoch 2/2  loss 1.5000  accuracy 25.00 %  "
            "test loss 1.2500  test accuracy 50.00 %  top-5 87.50 %  1,000 images/s",
        ),
    ],
    ids=["few classes", "many classes", "with its training"],
)
def test_the_line_of_an_epoch(home: Home, metrics: dict[str, float], line: str) -> None:
    run, said = home.run("job"), list[str]()
    run.root.mkdir(parents=True)
    run.spec.touch()
    ProgressWriter(run, 1, said.append).after_epoch(Moment(epoch=2, epochs=2, step=10), metrics)
    assert said == [line]
