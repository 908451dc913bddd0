"""A training step as one CUDA graph: what `EagerStep` launches one by one, recorded once and launched as a whole.

A small network's step is some hundred kernels of a few microseconds each, which a processor cannot launch as fast as a
GPU computes them. Launched as a graph they cost one call, and a few copies: of the batches to where the graph reads
them, of the learning rates, and of losses and logits from where it writes them. See "Accelerating PyTorch with CUDA
Graphs" (2021), pytorch.org/blog.

It is the eager step that is recorded, so both compute the same. What is unlike the recorded step is taken one operation
after the other: the smaller batch at the end of an epoch, an accumulation that it cuts short, and the first steps, in
which libraries load and the optimizer makes its state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from pipeline.data.draws import to_device
from pipeline.data.loader import Batch
from pipeline.errors import DeviceError
from pipeline.training.captured_forward import CapturedForward
from pipeline.training.cuda_graph import CannotRecordError, record
from pipeline.training.engine import Engine
from pipeline.training.half_weights import HalfWeights
from pipeline.training.step import EagerStep, Step

WARM_UP = 3  # steps before one is recorded

Outputs = Sequence[tuple[torch.Tensor, torch.Tensor]]  # of each batch, its loss and its logits


def choose(engine: Engine, *, log: Callable[[str], None]) -> Step:
    """Returns the step that a job is trained with. log: takes a line where it or an evaluation cannot be captured."""
    if isinstance(engine.forward, CapturedForward):
        engine.forward.log = log
    return CapturedStep(engine, log=log) if engine.setting.capture else EagerStep(engine)


@dataclass
class Recorded:
    """A graph, and the memory that it reads and writes; all of it stays where it is."""

    replay: Callable[[], None]
    batches: list[Batch]
    owns: list[torch.Tensor]  # float32, the share of its own in each image of a batch; empty where none is mixed
    rates: torch.Tensor  # float32, a learning rate for each group of parameters
    outputs: Outputs
    gradients: list[torch.Tensor | None]
    norm_before_clipping: torch.Tensor | None
    halves: HalfWeights | None  # is not looked at any more, but the graph uses its memory
    is_frozen: bool  # whether it is of a backbone that is not trained


class CapturedStep:
    """Records the eager step, and launches it again and again.

    Where it cannot be recorded, it stays eager, and the log says so; with `train.capture: true`, DeviceError is raised.
    """

    def __init__(self, engine: Engine, *, log: Callable[[str], None]) -> None:
        self.engine, self.eager, self.log = engine, EagerStep(engine), log
        self._is_refused = False
        self._recorded: Recorded | None = None
        self._num_warm = 0
        self._rates: list[list[float]] = []  # a row for each step of the epoch from `_first` on: of each group
        self._first = 0
        self._sent: torch.Tensor  # the same, float32 (steps, groups), on the device

    def __call__(self, batches: Iterable[Batch], *, num_batches: int, lr: float) -> int:
        batches = list(batches)
        if self._is_refused or not self._is_whole(batches):
            return self.eager(batches, num_batches=num_batches, lr=lr)
        if self._recorded is not None and self._recorded.is_frozen != self.engine.is_frozen:
            self._recorded, self._num_warm = None, 0
        if self._recorded is None and self._num_warm < WARM_UP:
            self._num_warm += 1
            return self.eager(batches, num_batches=num_batches, lr=lr)
        if self._recorded is None:
            self._recorded = self._try_to_record(batches)
        if self._recorded is None:
            return self.eager(batches, num_batches=num_batches, lr=lr)
        return self._take(self._recorded, batches)

    def gradient_norm(self) -> float:
        return self.eager.gradient_norm()

    def _is_whole(self, batches: Sequence[Batch]) -> bool:
        size, num = self.engine.loader.batch_size, self.engine.spec.train.accumulate
        return len(batches) == num and all(len(labels) == size for _, labels in batches)

    def _try_to_record(self, batches: Sequence[Batch]) -> Recorded | None:
        try:
            return self._record(batches)
        except CannotRecordError as error:
            why = f"this job's step cannot be captured as a CUDA graph: {error}"
        if self.engine.spec.train.capture is True:
            raise DeviceError(f"train.capture: {why}; train with capture: false")
        self._is_refused = True
        self.log(f"{why}; its operations are launched one by one")
        if self.engine.scaler.is_enabled():
            self.engine.scaler._per_optimizer_states.clear()  # as if no gradient had been looked at
        return None

    def _record(self, batches: Sequence[Batch]) -> Recorded:
        """Records a step of such batches; nothing is computed. Raises CannotRecordError."""
        engine, setting = self.engine, self.engine.setting
        groups = engine.optimizer.param_groups
        places = [(images.clone(), labels.clone()) for images, labels in batches]
        owns = [torch.ones((), device=setting.device) for _ in places if self.eager.mixer.is_on]
        rates = torch.zeros(len(groups), device=setting.device)
        halves = self._half_weights()

        def compute() -> Outputs:
            return self.eager.compute(places, owns=owns or [1.0] * len(places), rates=list(rates), halves=halves)

        before = [(group["lr"], group.get("capturable")) for group in groups]
        try:
            for group in groups:
                if "capturable" in group:
                    group["capturable"] = True  # Adam asks for it, though fused it makes no difference
            graph, outputs = record(compute)
        finally:
            for group, (rate, is_capturable) in zip(groups, before, strict=True):
                group["lr"] = rate
                if is_capturable is not None:
                    group["capturable"] = is_capturable
        gradients = [parameter.grad for parameter in engine.model.parameters()]
        norm, is_frozen = self.eager.norm_before_clipping, engine.is_frozen
        return Recorded(graph, places, owns, rates, outputs, gradients, norm, halves, is_frozen)

    def _half_weights(self) -> HalfWeights | None:
        """Not where a layer of the user's own may use its weights for something else, or nothing would be cast."""
        engine = self.engine
        is_cast = engine.setting.dtype is not torch.float32 and not engine.setting.compile
        if not is_cast or engine.spec.model.entry.own is not None:
            return None
        halves = HalfWeights.of(engine.model, engine.setting.dtype)
        return halves if halves.copies else None

    def _take(self, recorded: Recorded, batches: Sequence[Batch]) -> int:
        engine, mixer = self.engine, self.eager.mixer
        for number, ((images, labels), (at_images, at_labels)) in enumerate(
            zip(batches, recorded.batches, strict=True)
        ):
            mixed, own = mixer.mix(images, epoch=engine.epoch, batch=engine.batch + number)
            at_images.copy_(mixed)
            at_labels.copy_(labels)
            if recorded.owns:
                recorded.owns[number].fill_(own)
        number = self._number_in_table()
        recorded.rates.copy_(self._sent[number])
        recorded.replay()
        for group, rate in zip(engine.optimizer.param_groups, self._rates[number], strict=True):
            group["lr"] = rate  # as it is after an eager step, to be saved
        for parameter, gradient in zip(engine.model.parameters(), recorded.gradients, strict=True):
            parameter.grad = gradient  # an eager step in between has put its own there
        self.eager.norm_before_clipping = recorded.norm_before_clipping
        for (loss, logits), (_, labels) in zip(recorded.outputs, batches, strict=True):
            engine.means.add(loss.clone(), logits.clone(), labels, step=engine.step + 1)
        return sum(len(labels) for _, labels in batches)

    def _number_in_table(self) -> int:
        """The row of this step in the learning rates of all that are left of the epoch, which are sent at once."""
        engine = self.engine
        if not 0 <= engine.step - self._first < len(self._rates):
            left = -(-(engine.num_batches - engine.batch) // engine.spec.train.accumulate)
            steps = range(engine.step, engine.step + left)
            self._rates, self._first = [self.eager.rates(engine.schedule(step)) for step in steps], engine.step
            self._sent = to_device(torch.tensor(self._rates), engine.setting.device)
        return engine.step - self._first
