"""A moment of a training, as those are told it who write about the training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    step: int  # steps taken so far, over all attempts
    epoch: int  # epochs finished
    epochs: int  # that the job has in all
