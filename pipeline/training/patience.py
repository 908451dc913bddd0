"""Early stopping: whether a training ends because its held-out accuracy has not risen for long enough.

As in Keras and Lightning, after Prechelt, "Early Stopping - But When?" (1998): an epoch is better if its accuracy is
above the reference by more than `min_delta`, and is the reference from then on. A training ends after `patience` epochs
in a row that were not better.
"""

from __future__ import annotations

import operator
from typing import Any

from pipeline.jobfile.train import EarlyStopping
from pipeline.wording import plural


class Patience:
    """Is told of each epoch's accuracy. Without a section it never ends a training."""

    def __init__(self, section: EarlyStopping | None) -> None:
        self.section = section
        self.reference, self.epoch = -1.0, 0  # the accuracy to surpass, and the epoch that it is of

    def see(self, epoch: int, accuracy: float) -> None:
        """To be told of each epoch, counted from 1; to be told of one again changes nothing."""
        if self.section is not None and accuracy > self.reference + self.section.min_delta:
            self.reference, self.epoch = accuracy, epoch

    def is_over(self, epoch: int) -> bool:
        """Whether the training ends with this epoch; of one not seen yet, whether it does unless it is better."""
        return self.section is not None and epoch - self.epoch >= self.section.patience

    def in_words(self) -> str:
        """Says why a training has ended."""
        assert self.section is not None
        count, min_delta = self.section.patience, self.section.min_delta
        rise = f" of more than {min_delta:g}" if min_delta else ""
        return f"{plural(count, 'epoch')} without a rise{rise}"

    def state_dict(self) -> dict[str, Any] | None:
        return None if self.section is None else {"accuracy": self.reference, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any] | None, *, epoch: int) -> None:
        """state: None where there is none, or of other images: then it begins anew after `epoch`."""
        if state is None:
            self.reference, self.epoch = -1.0, epoch
        else:
            self.reference, self.epoch = float(state["accuracy"]), operator.index(state["epoch"])
