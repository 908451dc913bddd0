"""A moment of a training, as those are told it who write about the training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    step: int  # steps taken so far, over all attempts
    epoch: int  # epochs finished
    epochs: int  # that the job has in all
    is_stopped: bool = False  # whether early stopping ends it here

    @property
    def is_last(self) -> bool:
        """Whether the training ends with the epochs that are finished."""
        return self.is_stopped or self.epoch == self.epochs
