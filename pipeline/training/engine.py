"""The engine: what a job trains with, and how far it has come; built from a spec, saved and restored.

That is the network, the optimizer with its schedule and gradient scaler, the batches, the means of the losses so far,
and the position: finished epochs, batches of the one under way, steps in all.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.data.loader import Loader
from pipeline.data.splits import FileSplit, Split
from pipeline.errors import CheckpointError, DataError
from pipeline.jobfile.spec import Spec
from pipeline.training import (
    backbone,
    older_checkpoints,
    optimizers,
    parameter_groups,
    parts,
    view_average,
    weight_average,
)
from pipeline.training.captured_forward import CapturedForward, Forward
from pipeline.training.device import Setting, memory_format_of, use_onednn
from pipeline.training.features import last_layer
from pipeline.training.metrics import TrainingMeans
from pipeline.training.moment import Moment
from pipeline.training.patience import Patience

EVALUATION_IMAGES = {"cpu": 500, "cuda": 2_500}
"""Of 32 pixels, at once, on each kind of device. More fall out of a CPU's cache; a GPU is bound by calls with fewer."""

ROUNDING = 1e-6  # of a step: 0.7 epochs of 10 steps are 7, though 0.7 * 10 is more than that in binary
TUNING_STEPS = 10_000  # that a job must still take for cuDNN to try its kernels, which takes some seconds
MOST_READERS = {"train": 8, "test": 4}  # processes that read image files, 0.3 GB each


class Engine:
    """All that a step needs and changes."""

    def __init__(self, spec: Spec, dataset: Dataset, setting: Setting) -> None:
        self.spec, self.dataset, self.setting = spec, dataset, setting
        torch.manual_seed(spec.train.seed)
        self.model = parts.build_model(
            spec,
            num_classes=len(dataset.classes),
            channels=dataset.train.channels,
            image_size=dataset.train.image_size,
        )
        self.model.to(setting.device).to(memory_format=setting.memory_format)
        self.network: Forward = torch.compile(self.model) if setting.compile else self.model
        self.forward: Forward = CapturedForward(self.judged) if setting.capture else self.judged
        if last_layer(self.model) is None and (spec.model.freeze_epochs or spec.model.backbone_lr != 1):
            raise DataError("the model has no linear layer and no convolution, so that it has no backbone to freeze")
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = parts.build_optimizer(spec, parameter_groups.of(self.model, spec), fused=setting.fused)
        self.average = weight_average.of(spec, self.model)
        counts = torch.bincount(dataset.train.labels, minlength=len(dataset.classes)).to(setting.device)
        self.loss, self.test_loss = (parts.build_loss(spec, counts, training=training) for training in (True, False))
        self.scaler = torch.amp.GradScaler(setting.device.type, enabled=setting.dtype is torch.float16)
        self.loader = self._loader(dataset.train, spec.data.batch_size, train=True)
        self.held_out_loader = self.evaluation_loader(dataset.held_out)
        self.means = TrainingMeans()
        self.epoch = self.batch = self.step = 0  # finished epochs, batches of the one under way, steps in all
        self.num_images = 0  # images trained on in this attempt
        self.best_accuracy, self.best_epoch = -1.0, 0
        self.patience = Patience(spec.train.early_stopping)

    def evaluation_loader(self, split: Split | FileSplit) -> Loader:
        """Returns images to be judged, in their order."""
        return self._loader(split, evaluation_batch(split.image_size, self.setting.device), train=False)

    def _loader(self, split: Split | FileSplit, batch_size: int, *, train: bool) -> Loader:
        augmentations = [parts.build_augmentation(section) for section in (self.spec.data.augment if train else ())]
        return Loader(
            split,
            batch_size=batch_size,
            device=self.setting.device,
            normalization=self.dataset.normalization,
            dtype=self.setting.dtype,
            augment=augmentations,
            seed=self.spec.train.seed,
            shuffle=train,
            balanced=train and self.spec.data.sampler == "balanced",
            drop_last=train and self.spec.data.last_batch == "drop",
            num_readers=self._num_readers(train=train),
        )

    def _num_readers(self, *, train: bool) -> int:
        asked = self.spec.data.readers
        most = MOST_READERS["train" if train else "test"]
        return min(most, torch.get_num_threads()) if asked == "auto" else int(asked)

    def begin_training(self) -> None:
        """To be called before the steps of an epoch."""
        self.model.train()
        if self.spec.model.freeze_epochs:
            backbone.freeze(self.model, self.trained, frozen=self.is_frozen)
        if self.step == 0:
            self.average.begin()

    @property
    def is_frozen(self) -> bool:
        """Whether the last layer alone is trained in the epoch under way."""
        return self.epoch < self.spec.model.freeze_epochs

    def tune(self, num_images: int | None = None) -> None:
        """Say which batch comes: of so many images to train on, or one to evaluate.

        cuDNN tries its kernels for each new shape where that is asked of it, 0.1 to 5 s for a network on an H100. It is
        asked for the batches of a long training, and not for the last one of an epoch or an evaluation. On a CPU, what
        has no oneDNN are steps alone: an evaluation's batches are large.
        """
        use_onednn(self.setting.onednn or num_images is None)
        torch.backends.cudnn.benchmark = self.is_long and num_images == self.loader.batch_size

    @functools.cached_property
    def is_long(self) -> bool:
        """Whether the training has enough steps to tune kernels for, and may use what is fastest here."""
        return not self.spec.train.deterministic and self.num_steps - self.step >= TUNING_STEPS

    def judged(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits of images that are not trained on: float32 (N, classes). images: (N, C, H, W)."""
        return self.judged_by(self.network, images)

    def judged_by(self, network: Forward, images: torch.Tensor) -> torch.Tensor:
        """As `judged`, by the network itself or what it was compiled to."""
        with self.setting.autocast():
            return view_average.mean_logits(
                functools.partial(self.logits, network), images, kind=self.spec.data.test_augment
            )

    @property
    def num_views(self) -> int:
        """How often the network sees each held-out image."""
        return view_average.NUM_VIEWS[self.spec.data.test_augment]

    def logits(self, network: Forward, images: torch.Tensor) -> torch.Tensor:
        """Returns float32 (N, classes). images: (N, C, H, W), normalized. To be called inside `setting.autocast`."""
        memory_format = self.setting.memory_format if self.model.training else memory_format_of(self.spec)
        return network(images.contiguous(memory_format=memory_format)).float()

    @property
    def moment(self) -> Moment:
        return Moment(self.step, self.epoch, self.spec.train.num_epochs, is_stopped=self.patience.is_over(self.epoch))

    @property
    def is_epoch_trained(self) -> bool:
        """Whether all batches of the epoch under way are done, and its evaluation is what comes next."""
        return self.epoch < self.spec.train.num_epochs and self.batch == self.num_batches

    @property
    def num_batches(self) -> int:
        """The batches of the epoch under way: all, but where the training ends within it."""
        left = (self.num_steps - self.epoch * self.steps_per_epoch) * self.spec.train.accumulate
        return min(self.loader.num_batches, left)

    @property
    def images_of_epoch(self) -> int:
        """The images of the epoch under way, each batch's counted."""
        return min(self.loader.num_images, self.num_batches * self.loader.batch_size)

    @property
    def first_point(self) -> int:
        """The first step that this attempt may write to the curves: 0 for a new run.

        An epoch that was trained but not evaluated is told again from its last step on: the attempt before may have
        evaluated it and been killed before it could save that.
        """
        return 0 if self.step == 0 else self.step + (not self.is_epoch_trained)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.loader.num_batches // self.spec.train.accumulate)

    @property
    def num_steps(self) -> int:
        """The steps of the whole job, rounded up, as of the 9.9 epochs of Jordan (2024), arXiv:2404.00498."""
        return math.ceil(self.steps_per_epoch * self.spec.train.epochs - ROUNDING)

    @functools.cached_property
    def schedule(self) -> Callable[[int], float]:
        """The learning rate as a function of the step, which counts from 0."""
        peak: float = self.spec.train.optimizer.options()["lr"]
        factor = parts.build_schedule(self.spec, steps=self.num_steps, steps_per_epoch=self.steps_per_epoch)
        return lambda step: peak * factor(step)

    def end_epoch(self) -> None:
        """Move on to the next epoch."""
        self.means.begin_epoch()
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, and whether the weights are finite, on the device."""
        self.means.fold()
        floats = [weight.detach() for weight in self.model.parameters() if weight.is_floating_point()]
        zeros = torch._foreach_mul(floats, 0.0) if floats else []  # but of what is not finite; in a few calls for all
        return {
            "is_finite": nn.utils.get_total_norm(zeros, norm_type=1.0) == 0,
            **self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **self.means.state_dict(),
            "position": {"epoch": self.epoch, "batch": self.batch, "step": self.step},
            "best": {"accuracy": self.best_accuracy, "epoch": self.best_epoch, "of": self.dataset.held_out_name},
            "patience": self.patience.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.setting.device)
            if self.setting.device.type == "cuda"
            else None,
            "threads": torch.get_num_threads(),
            "precision": self.setting.precision,
            "channels_last": self.setting.memory_format is torch.channels_last,
            "onednn": self.setting.onednn,
        }

    def load_state_dict(self, state: dict[str, Any], *, log: Callable[[str], object] | None = None) -> None:
        """Raises CheckpointError where the state is of another model, or of none. log: is told of an older version."""
        try:
            saved, of_optimizer = weight_average.trained(state), state["optimizer"]
            weights = older_checkpoints.up_to_date(self.model, saved)
            self.model.load_state_dict(weights)
            self.average.load_state_dict(state)
            if weights is not saved:
                of_optimizer = older_checkpoints.without_biases(self.model, self.optimizer, saved, of_optimizer)
            self.optimizer.load_state_dict(of_optimizer)
            optimizers.lay_out_state(self.optimizer)
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(state["scaler"])
            self.means.load_state_dict(state)
            position, best = state["position"], state["best"]
            self.epoch, self.batch, self.step = (operator.index(position[key]) for key in ("epoch", "batch", "step"))
            is_of_these = best.get("of", "test") == self.dataset.held_out_name  # else it was the best by other images
            if is_of_these:
                self.best_accuracy, self.best_epoch = float(best["accuracy"]), operator.index(best["epoch"])
            self.patience.load_state_dict(state.get("patience") if is_of_these else None, epoch=self.epoch)
            self._load_random_state(state)
            if weights is not saved and log is not None:
                log(older_checkpoints.NOTE)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"the checkpoint does not fit the model: {why}") from None

    def _load_random_state(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["random"].cpu())
        if self.setting.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.setting.device)
        if self.spec.train.deterministic:
            torch.set_num_threads(state["threads"])  # sums are taken in an order that depends on it


def evaluation_batch(image_size: int, device: torch.device) -> int:
    """Returns how many images are evaluated at once: of larger ones fewer, in the same memory."""
    most = EVALUATION_IMAGES[device.type]
    return min(most, max(1, most * 32**2 // image_size**2))
