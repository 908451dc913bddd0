"""What is written of a run, and when: the `log` section of a job file, carried out.

What is more than scalars is optional: it is due after certain epochs, and if writing it fails, the job says so and goes
on without it. Everything of an epoch comes from the one evaluation that the epoch ends with, and is written before the
checkpoint that follows, so that a resumed run has it once; by the thread that saves, while the next epoch is trained.
The time of each kind is measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn

from pipeline.board import curves, graph, histograms, hparams, layout, projector, tags, texts
from pipeline.board.artist import Artist
from pipeline.board.conditions import describe_conditions, describe_versions
from pipeline.board.images import grid, spread
from pipeline.board.profile import Profile, is_recorded
from pipeline.board.writer import Board
from pipeline.data.dataset import Dataset
from pipeline.data.loader import Loader
from pipeline.errors import PipelineError
from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.jobfile.spec import Spec, is_due
from pipeline.models.quantized import left_out
from pipeline.models.quantized_figures import step_sizes, weight_levels
from pipeline.training.device import Setting
from pipeline.training.drawings import Drawings
from pipeline.training.evaluation import Evaluation
from pipeline.training.moment import Moment
from pipeline.training.predictions import Predictions

GRID = 64  # images


@dataclass
class Counted:
    """What was counted on the device at an epoch's end, and may be on its way to the CPU."""

    parameters: histograms.ParameterCounts | None = None
    curves: curves.Counts | None = None


class Logbook:
    """Is told when something has happened, and handed what there is to see then; it keeps no network."""

    def __init__(
        self,
        board: Board,
        spec: Spec,
        dataset: Dataset,
        setting: Setting,
        *,
        first_step: int,
        num_steps: int,
        manifest: dict[str, Any],
        job_file: str,
        log: Callable[[str], None],
        artist: Artist | None = None,
    ) -> None:
        """first_step: the steps taken before this attempt. num_steps: of the whole job.

        manifest: of the run, as in `manifest.json`. job_file: its text. log: takes a line for the attempt's log.
        artist: draws figures in a process of its own; `settle` writes them then.
        """
        self.board, self.spec, self.dataset, self.setting = board, spec, dataset, setting
        self.manifest, self.job_file, self.log = manifest, job_file, log
        self.drawings = Drawings(board, dataset.classes, artist)
        self.seconds: dict[str, float] = defaultdict(float)  # what each kind has taken
        self._lock = threading.Lock()  # of `seconds`, as the thread that saves writes too
        self._broken: set[str] = set()  # kinds that have failed once
        self._said: set[str] = set()
        self.profile = self._make_profile(first_step, num_steps) if spec.log.profile else None

    def _make_profile(self, step: int, num_steps: int) -> Profile | None:
        """Returns None where an earlier attempt has recorded it, or nothing is left to record."""
        if step == num_steps or (step > 0 and is_recorded(self.board)):
            return None
        return Profile(self.board, first_step=step, num_steps=num_steps, device=self.setting.device)

    @contextlib.contextmanager
    def measured(self, kind: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[kind] += time.perf_counter() - began

    @contextlib.contextmanager
    def optional(self, kind: str, *, is_waited_for: bool = True) -> Iterator[None]:
        """What goes wrong inside is said once, and the job goes on: hours of training matter more.

        Not where the disk is full or the run's folder is gone: then nothing else could be written either.
        """
        try:
            with self.measured(kind) if is_waited_for else contextlib.nullcontext():
                yield
        except PipelineError:  # a stop, or a damaged image of the dataset: these are the job's
            raise
        except Exception as error:
            is_disk_full = isinstance(error, OSError) and error.errno in durable.DISK_FULL
            if is_disk_full or not self.board.folder.is_dir():
                raise
            if kind not in self._broken:
                self._broken.add(kind)
                reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                self.log(f"{kind}: cannot be shown, and the job goes on without: {reason}")
                if not isinstance(error, OSError):  # which says in its line what the system refused
                    self.log("".join(traceback.format_exception(error)).rstrip())

    def is_due(self, kind: str, moment: Moment) -> bool:
        """Whether a kind that is a field of the `log` section is to be written at the end of this epoch."""
        when = getattr(self.spec.log, kind)
        return kind not in self._broken and is_due(when, epoch=moment.epoch, is_last=moment.is_last)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self.measured("scalars"):
            self.board.scalars(step, values)

    def after_step(self, step: int) -> None:
        """To be called after each step, with the number of steps taken so far, and before the first one."""
        if self.profile is not None and step in self.profile.edges and "profile" not in self._broken:
            with self.optional("profile"):
                self.profile.after(step)

    def close(self) -> None:
        """To be called when the attempt ends, however it does."""
        if self.profile is not None:
            with self.optional("profile"):
                self.profile.close()

    def costs(self, elapsed_s: float) -> str:
        """Says what writing all this has taken in an attempt's time, the dearest kinds first."""
        total = sum(self.seconds.values())
        dearest = sorted(self.seconds.items(), key=lambda item: -item[1])[:3]
        kinds = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in dearest)
        return f"logging took {total:.1f} s of {elapsed_s:.1f} s, most of it beside the training ({kinds})"

    def measure(self, gradient_norm: Callable[[], float]) -> dict[str, float]:
        """Returns what a point of the training curves has beside loss, accuracy and rate."""
        values = {}
        with self.optional("gradient norm"):
            values[tags.GRADIENT_NORM] = gradient_norm()
            values[tags.DEVICE_MEMORY] = self.setting.memory_mib()
        return values

    def add_step_sizes(self, step: int, model: nn.Module) -> None:
        """Writes the distance of a quantized network's levels, a scalar a quantizer. Waits for the device."""
        if self.spec.model.quantize is None:
            return
        with self.optional("step sizes"):
            if sizes := step_sizes(model):
                self.board.scalars(step, {tags.step_size(name): size for name, size in sizes.items()})

    def begin(self) -> None:
        """Write what is known before a job's first step."""
        projector.remove_embeddings(self.board.folder)
        with self.optional("texts"):
            rows = [
                *describe_conditions(self.spec.model_dump(mode="json"), self.manifest),
                *describe_versions(self.manifest),
            ]
            self.board.text(tags.JOB_FILE, texts.code(self.job_file, "yaml"), 0)
            self.board.text(tags.CONDITIONS, texts.table(("condition", "value"), rows), 0)
        with self.optional("hparams"):
            hparams.add_start(self.board, self.spec)
            layout.add_layout(self.board)

    def after_first_step(self, model: nn.Module, loader: Loader) -> None:
        """Write what can be seen of a job at its beginning, which takes half a second; the first step does not wait.

        loader: of the training batches.
        """
        for line in left_out(model):
            self.log(line)
        if self.spec.log.graph:
            with self.optional("graph"):
                train = self.dataset.train
                graph.add_graph(self.board, model, channels=train.channels, image_size=train.image_size)
        if self.spec.log.images:
            with self.optional("images"):
                self._add_images(loader)

    def _add_images(self, loader: Loader) -> None:
        train = self.dataset.train
        self._add_grid(tags.SAMPLES, train.read(spread(train.labels, GRID)))
        first = loader.peek(min(GRID, loader.batch_size))
        self._add_grid(tags.FIRST_BATCH, self.dataset.normalization.denormalize(first))

    def _add_grid(self, tag: str, images: torch.Tensor) -> None:
        self.board.writer.add_image(tag, grid(images, columns=8), 0)

    @functools.cached_property
    def samples(self) -> list[int]:
        """The held-out images that the projector shows, in ascending order."""
        return sorted(spread(self.dataset.held_out.labels, projector.NUM_IMAGES))

    def wanted_features(self, moment: Moment) -> list[int] | None:
        """Returns the held-out images whose features the evaluation at this moment is to keep; None: of none.

        They are kept wherever this epoch may be the last one, which early stopping decides by the evaluation.
        """
        return self.samples if self.is_due("embeddings", moment) else None

    def end_epoch(self, moment: Moment, model: nn.Module, evaluation: Evaluation) -> Callable[[], None]:
        """Count what is due after an epoch, which waits for nothing, and return what writes it and all the rest.

        That may be called by another thread, once the counts are on the CPU, while the model is trained again.
        moment: with this epoch among the finished ones.
        """
        counted = Counted()
        if self.is_due("histograms", moment):
            with self.optional("histograms"):
                counted.parameters = histograms.count_parameters(model, levels=weight_levels(model))
        if self.is_due("pr_curves", moment):
            with self.optional("pr_curves"):
                counted.curves = curves.count(evaluation.logits, evaluation.labels)
        none = evaluation.logits.new_empty(0)  # nobody reads them any more, and they may take much of a GPU
        evaluation = dataclasses.replace(evaluation, logits=none, labels=none)
        return functools.partial(self._write_epoch, moment, evaluation, counted)

    def _write_epoch(self, moment: Moment, evaluation: Evaluation, counted: Counted) -> None:
        step, predictions = moment.step, Predictions(self.dataset, evaluation)
        per_class = zip(self.dataset.classes, evaluation.class_accuracy, strict=True)
        self.scalars(step, {tags.class_accuracy(name): value for name, value in per_class})
        with self.optional("evaluation"):
            record = predictions.record(moment)
            record.write(RunPaths(self.board.folder).evaluation)
        if counted.parameters is not None:
            with self.optional("histograms"):
                counted.parameters.write(self.board, step=step)
        if counted.curves is not None:
            with self.optional("pr_curves"):
                curves.add_pr_curves(self.board, self.dataset.classes, counted.curves, step=step)
        if self.is_due("figures", moment):
            with self.optional("figures"):
                self.drawings.begin(predictions, step=step)
        if self.is_due("embeddings", moment):
            with self.optional("embeddings"):
                features = self._small_enough(evaluation.features)
                projector.add_embeddings(self.board.folder, predictions.samples(self.samples), features, step=step)
        if moment.is_last:
            self._add_end(moment, predictions)

    def _add_end(self, moment: Moment, predictions: Predictions) -> None:
        with self.optional("texts"):
            report = texts.class_report(predictions.record(moment).class_scores())
            self.board.text(tags.CLASS_REPORT, report, moment.step)
        with self.optional("hparams"):
            hparams.add_end(self.board, step=moment.step)

    def _small_enough(self, features: torch.Tensor | None) -> torch.Tensor | None:
        """Returns None where a browser could not load them: of a linear layer on large images they would be 300 MB."""
        if features is None or features.shape[1] <= projector.MAX_VALUES:
            return features
        self._say_once(
            f"embeddings: the last layer is given {features.shape[1]:,} values an image, and the projector gets "
            f"{projector.MAX_VALUES:,} at most; it shows the pixels alone"
        )
        return None

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.log(line)

    def settle(self) -> None:
        """Wait for the figures that are still being drawn, and put all on the disk. Then a checkpoint may follow."""
        while self.drawings:
            with self.optional("figures", is_waited_for=False):
                self.drawings.write()
        self.board.flush()

    def settle_at_end(
        self,
        kind: type[BaseException] | None,  # noqa: ARG002
        error: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """As an exit callback: where an error is under way, that one is told, and not what the disk refuses."""
        with contextlib.nullcontext() if error is None else contextlib.suppress(OSError):
            self.settle()
