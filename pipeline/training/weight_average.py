"""Moving averages of a network's weights, which are evaluated and kept in the place of the weights themselves.

All that the state of a network has as floating point is averaged, with the running means of batch norm. The training
goes on with the weights as they are. A checkpoint has the average as `model`, and as `trained` what the training goes
on with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pipeline.jobfile.spec import Spec
from pipeline.jobfile.train import Ema, Lookahead


def of(spec: Spec, model: nn.Module) -> WeightAverage:
    """Returns the average that a job asks for, or one that is the weights themselves."""
    average: MovingAverage
    if spec.train.ema is not None:
        average = ExponentialAverage(model, spec.train.ema)
    elif spec.train.lookahead is not None:
        average = LookaheadAverage(model, spec.train.lookahead)
    else:
        return WeightAverage(model)
    average.is_fixed = spec.model.entry.own is None
    average.is_quantized = spec.model.quantize is not None
    return average


def trained(state: Mapping[str, Any]) -> Any:
    """Returns the weights of a checkpoint that the training goes on with."""
    return state.get("trained", state["model"])


class WeightAverage:
    """None: what is evaluated are the weights. What a kind of average does is what its class overrides."""

    def __init__(self, model: nn.Module) -> None:
        """model: where it is trained."""
        self.model = model

    def begin(self) -> None:
        """To be called before the first step, when the weights are as they are to begin with."""

    def update(self, step: int, *, num_steps: int) -> None:
        """To be called after each step. step: steps taken so far. num_steps: of the whole job. Nothing waits."""

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Has the network the averaged weights meanwhile, in the same memory."""
        yield

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint has of the weights, on the device."""
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the average out of a checkpoint. Raises KeyError where it has none of these weights."""


class MovingAverage(WeightAverage):
    """What both kinds have in common: a second set of weights, moved towards the network's every few steps.

    `torch.optim.swa_utils.AveragedModel` is a second network. Here the values of the two sets are exchanged, so that an
    evaluation that was recorded as a CUDA graph, or compiled, is one of the average.
    """

    is_fixed = True  # whether all tensors stay where they lie in memory, which code of a user's own may not do
    is_quantized = False  # whether the first batch decides where some of them begin

    def __init__(self, model: nn.Module, *, every: int) -> None:
        super().__init__(model)
        self.every = every
        self._weights = self._found()
        self.mean = {name: value.clone() for name, value in self._weights.items()}

    def _found(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """All that is averaged, where the network has it now."""
        if not self.is_fixed:
            self._weights = self._found()
        return self._weights

    def share(self, step: int, num_steps: int) -> float:
        """Returns how far the average moves, 1 being all of the way to the weights."""
        raise NotImplementedError

    def begin(self) -> None:
        _copy(self.mean, self.weights)

    def update(self, step: int, *, num_steps: int) -> None:
        if step == 1 and self.is_quantized:
            self.begin()  # the steps and ranges of quantizers begin by the first batch
        if step % self.every == 0:
            self._move(self.share(step, num_steps))

    @torch.no_grad()
    def _move(self, share: float) -> None:
        torch._foreach_lerp_([*self.mean.values()], [*self.weights.values()], share)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        kept = {name: value.clone() for name, value in self.weights.items()}
        _copy(self.weights, self.mean)
        _copy(self.mean, kept)

    def state_dict(self) -> dict[str, Any]:
        now = self.model.state_dict()
        return {"model": {**now, **self.mean}, "trained": now}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _copy(self.mean, {name: state["model"][name] for name in self.mean})


class ExponentialAverage(MovingAverage):
    """mean <- d mean + (1 - d) weights every few steps: Polyak and Juditsky (1992), as Szegedy et al. (2016) use it.

    d is `decay`, but (1 + n) / (10 + n) for the update number n where that is less, so that the weights of the
    beginning are soon forgotten, as TensorFlow's `ExponentialMovingAverage(num_updates=n)` does.
    """

    def __init__(self, model: nn.Module, asked: Ema) -> None:
        super().__init__(model, every=asked.every)
        self.decay = asked.decay

    def share(self, step: int, num_steps: int) -> float:  # noqa: ARG002
        num_updates = step // self.every
        return 1 - min(self.decay, (1 + num_updates) / (10 + num_updates))


class LookaheadAverage(MovingAverage):
    """Every few steps slow <- slow + alpha (weights - slow), and the weights go on from there.

    Zhang et al. (2019), arXiv:1907.08610, Algorithm 1, where alpha is constant; with `power` it falls from 1 to
    `alpha`, 1 - (1 - alpha) (step / steps)^power, as in Jordan (2024), arXiv:2404.00498.
    """

    def __init__(self, model: nn.Module, asked: Lookahead) -> None:
        super().__init__(model, every=asked.every)
        self.alpha, self.power = asked.alpha, asked.power

    def share(self, step: int, num_steps: int) -> float:
        return 1 - (1 - self.alpha) * float((step / num_steps) ** self.power)

    def _move(self, share: float) -> None:
        super()._move(share)
        _copy(self.weights, self.mean)


def _copy(to: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    torch._foreach_copy_([*to.values()], [values[name] for name in to])
