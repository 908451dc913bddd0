"""The custom scalars dashboard: train and test on one chart, all classes on one chart.

`SummaryWriter.add_scalars` would make a run of its own of each curve.
"""

from __future__ import annotations

import re

from torch.utils.tensorboard.summary import custom_scalars

from pipeline.board import tags
from pipeline.board.writer import Board


def add_layout(board: Board) -> None:
    """Writes which curves share a chart."""

    def chart(*names: str) -> list[object]:
        return ["Multiline", [f"^{re.escape(name)}$" for name in names]]

    layout = {
        "train and test": {
            "loss": chart(tags.EPOCH_LOSS, tags.VAL_LOSS, tags.TEST_LOSS),  # a point an epoch
            "accuracy": chart(tags.EPOCH_ACCURACY, tags.VAL_ACCURACY, tags.TEST_ACCURACY, *tags.TOP5.values()),
        },
        "classes": {"test accuracy of each class": ["Multiline", [f"^{re.escape(tags.class_accuracy(''))}.*"]]},
        "training": {
            "learning rate": chart(tags.LEARNING_RATE),
            "gradient norm": chart(tags.GRADIENT_NORM),
            "images per second": chart(tags.IMAGES_PER_SECOND),
        },
    }
    board.add(0, custom_scalars(layout))
