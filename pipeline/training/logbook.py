"""What is written of a run, and when: the `log` section of a job file, carried out.

What is more than scalars is a *showing*: it is due after certain epochs, and if it fails, the job says so and goes on
without it. All of an epoch's showings come from the one evaluation that the epoch ends with. They are written before
the checkpoint that follows, so that a resumed run has each of them once. The time of each kind is measured.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from pipeline.board import curves, figures, graph, histograms, hparams, layout, projector, tags, texts
from pipeline.board.conditions import describe_conditions, describe_versions
from pipeline.board.images import denormalized, grid, spread, thumbnail
from pipeline.board.profile import Profile, is_recorded
from pipeline.board.writer import Board
from pipeline.data.source import FileSplit, Split
from pipeline.errors import PipelineError
from pipeline.home import durable
from pipeline.home.evaluation_record import EvaluationRecord, Mistake
from pipeline.home.paths import RunPaths
from pipeline.jobfile.spec import is_due

if TYPE_CHECKING:
    from pipeline.training.engine import Engine
    from pipeline.training.metrics import Evaluation

GRID = 64  # images
MAX_PREDICTIONS = 20  # images in the figure of predictions, unless there are more classes
MAX_MISTAKES = 20
COLUMNS = 4  # TensorBoard shows an image 350 pixels wide; of more columns the texts could not be read
MANY = 40  # images, from which a figure of four columns would be too high


class Logbook:
    def __init__(
        self,
        board: Board,
        engine: Engine,
        *,
        manifest: dict[str, Any],
        job_file: str,
        log: Callable[[str], None],
    ) -> None:
        """manifest: of the run, as in `manifest.json`. job_file: its text. log: takes a line for the attempt's log."""
        self.board, self.engine, self.manifest, self.job_file, self.log = board, engine, manifest, job_file, log
        self.log_spec, self.classes = engine.spec.log, engine.source.classes
        self.seconds: dict[str, float] = defaultdict(float)  # what each kind has taken
        self._broken: set[str] = set()
        self._said: set[str] = set()
        self.profile = self._make_profile() if self.log_spec.profile else None

    def _make_profile(self) -> Profile | None:
        """None where an earlier attempt has recorded it, or nothing is left to record."""
        step, num_steps = self.engine.step, self.engine.num_steps
        if step == num_steps or (step > 0 and is_recorded(self.board)):
            return None
        return Profile(self.board, first_step=step, num_steps=num_steps, device=self.engine.setting.device)

    @contextlib.contextmanager
    def measured(self, kind: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - began

    @contextlib.contextmanager
    def showing(self, kind: str) -> Iterator[None]:
        """What goes wrong inside is said once, and the job goes on: hours of training matter more.

        Not where the disk is full: then the job is tried again later, from its last checkpoint.
        """
        try:
            with self.measured(kind):
                yield
        except PipelineError:  # a stop, or a damaged image of the dataset: these are the job's
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in durable.DISK_FULL:
                raise
            if kind not in self._broken:
                self._broken.add(kind)
                reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                self.log(f"{kind}: cannot be shown, and the job goes on without: {reason}")
                self.log("".join(traceback.format_exception(error)).rstrip())

    def is_due(self, kind: str) -> bool:
        """Whether a kind that is a field of the `log` section is to be written at the end of the epoch under way."""
        epoch, epochs = self.engine.epoch + 1, self.engine.spec.train.epochs
        return kind not in self._broken and is_due(getattr(self.log_spec, kind), epoch=epoch, epochs=epochs)

    def scalars(self, values: Mapping[str, float]) -> None:
        with self.measured("scalars"):
            self.board.scalars(self.engine.step, values)

    def after(self, step: int) -> None:
        """To be called after each step, with the number of steps taken so far, and before the first one."""
        if self.profile is not None and step in self.profile.edges and "profile" not in self._broken:
            with self.showing("profile"):
                self.profile.after(step)

    def close(self) -> None:
        """Of an attempt that ends, however it does."""
        if self.profile is not None:
            with self.showing("profile"):
                self.profile.close()

    def costs(self, elapsed_s: float) -> str:
        """What writing all this has taken of an attempt's time, in words, the dearest kinds first."""
        total = sum(self.seconds.values())
        dearest = sorted(self.seconds.items(), key=lambda item: -item[1])[:3]
        kinds = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in dearest)
        return f"logging took {total:.1f} s of {elapsed_s:.1f} s ({kinds})"

    def measure(self) -> dict[str, float]:
        """What a point of the training curves has beside loss, accuracy and rate."""
        values = {}
        with self.showing("gradient norm"):
            values[tags.GRADIENT_NORM] = self.engine.gradient_norm()
            values[tags.DEVICE_MEMORY] = self.engine.setting.memory_mib()
        return values

    def flush(self) -> None:
        with self.measured("flush"):
            self.board.flush()

    def begin(self) -> None:
        """What is known before the first step; nothing where an attempt goes on."""
        if self.engine.first_point > 0:
            return
        engine, source = self.engine, self.engine.source
        projector.remove_embeddings(self.board.folder)
        with self.showing("texts"):
            spec = engine.spec.model_dump(mode="json")
            rows = [*describe_conditions(spec, self.manifest), *describe_versions(self.manifest)]
            self.board.text(tags.JOB_FILE, texts.code(self.job_file, "yaml"), 0)
            self.board.text(tags.CONDITIONS, texts.table(("condition", "value"), rows), 0)
        with self.showing("hparams"):
            hparams.add_start(self.board, engine.spec)
            layout.add_layout(self.board)
        if self.log_spec.graph:
            with self.showing("graph"):
                graph.add_graph(
                    self.board, engine.model, channels=source.train.channels, image_size=source.train.image_size
                )
        if self.log_spec.images:
            with self.showing("images"):
                self._add_images()

    def _add_images(self) -> None:
        source = self.engine.source
        untouched = source.train.read(spread(source.train.labels, GRID))
        self._add_grid(tags.SAMPLES, untouched)
        batches = self.engine.loader.epoch(0)
        first, _ = next(batches)
        self._add_grid(tags.FIRST_BATCH, denormalized(first[:GRID], mean=source.mean, std=source.std))

    def _add_grid(self, tag: str, images: torch.Tensor) -> None:
        self.board.writer.add_image(tag, grid(images, columns=8), 0)

    @cached_property
    def samples(self) -> list[int]:
        """The held-out images that the projector shows, in ascending order."""
        return sorted(spread(self.engine.source.test.labels, projector.NUM_IMAGES))

    @property
    def wanted_features(self) -> list[int] | None:
        """The held-out images whose features the coming evaluation is to keep; None: of none."""
        return self.samples if self.is_due("embeddings") else None

    def end_epoch(self, evaluation: Evaluation) -> None:
        """Everything but scalars that this epoch, which was just evaluated, is due. Before `engine.epoch` moves on."""
        step, findings = self.engine.step, Findings(self.engine, evaluation)
        with self.showing("evaluation"):
            findings.evaluated.write(RunPaths(self.board.folder).evaluation)
        if self.is_due("histograms"):
            with self.showing("histograms"):
                histograms.add_parameters(self.board, self.engine.model, step=step)
        if self.is_due("pr_curves"):
            with self.showing("pr_curves"):
                curves.add_pr_curves(self.board, self.classes, findings.probabilities, evaluation.labels, step=step)
        if self.is_due("figures"):
            with self.showing("figures"):
                self._add_figures(findings)
        if self.is_due("embeddings"):
            with self.showing("embeddings"):
                features = self._small_enough(evaluation.features)
                projector.add_embeddings(self.board.folder, findings.samples(self.samples), features, step=step)
        if self.engine.epoch + 1 == self.engine.spec.train.epochs:
            with self.showing("texts"):
                report = texts.class_report(findings.evaluated.class_scores())
                self.board.text(tags.CLASS_REPORT, report, step)
            with self.showing("hparams"):
                hparams.add_end(self.board, step=step)

    def _small_enough(self, features: torch.Tensor | None) -> torch.Tensor | None:
        """None where a browser could not load them: of a linear layer on large images they would be 300 MB."""
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

    def _add_figures(self, findings: Findings) -> None:
        step, num_classes = self.engine.step, len(self.classes)
        shown = spread(findings.evaluation.labels.cpu(), max(MAX_PREDICTIONS, num_classes))
        columns = COLUMNS if len(shown) <= MANY else 10
        figures.add_predictions(self.board, tags.PREDICTIONS, findings.predictions(shown), columns=columns, step=step)
        if findings.mistakes:
            predictions = findings.predictions(findings.mistakes)
            figures.add_predictions(self.board, tags.MISTAKES, predictions, columns=COLUMNS, step=step)
        pixels = figures.draw_confusion(findings.evaluation.confusion, self.classes)
        self.board.writer.add_image(tags.CONFUSION, pixels, step, dataformats="HWC")


class Findings:
    """An evaluation, image by image; nothing is worked out before it is asked for."""

    def __init__(self, engine: Engine, evaluation: Evaluation) -> None:
        self.engine, self.evaluation = engine, evaluation
        self.classes = engine.source.classes
        self.split: Split | FileSplit = engine.source.test

    @cached_property
    def probabilities(self) -> torch.Tensor:
        """(N, classes), on the device."""
        return self.evaluation.logits.softmax(1)

    @cached_property
    def labels(self) -> torch.Tensor:
        return self.evaluation.labels.cpu()

    @cached_property
    def confidence(self) -> torch.Tensor:
        return self.probabilities.amax(1).cpu()

    @cached_property
    def predicted(self) -> torch.Tensor:
        """Of the logits, as the confusion: probabilities that round to the same number have no order."""
        return self.evaluation.logits.argmax(1).cpu()

    @cached_property
    def mistakes(self) -> list[int]:
        """The most confident ones first."""
        wrong = (self.predicted != self.labels).nonzero().flatten()
        return wrong[self.confidence[wrong].argsort(descending=True, stable=True)[:MAX_MISTAKES]].tolist()

    def predictions(self, indices: list[int]) -> list[figures.Prediction]:
        images = self.split.read(indices)
        return [
            figures.Prediction(
                image,
                self.classes[self.labels[index]],
                self.classes[self.predicted[index]],
                float(self.confidence[index]),
            )
            for image, index in zip(images, indices, strict=True)
        ]

    def samples(self, indices: list[int]) -> projector.Samples:
        images = self.split.read(indices)
        return projector.Samples(indices, images, self.labels[indices], self.predicted[indices], self.classes)

    @cached_property
    def evaluated(self) -> EvaluationRecord:
        images = self.split.read(self.mistakes) if self.mistakes else ()
        mistakes = [
            Mistake(
                index,
                label=int(self.labels[index]),
                predicted=int(self.predicted[index]),
                probability=float(self.confidence[index]),
                png=thumbnail(image),
            )
            for index, image in zip(self.mistakes, images, strict=True)
        ]
        confusion = self.evaluation.confusion.to_sparse()
        return EvaluationRecord.of(
            zip(*confusion.indices().tolist(), confusion.values().tolist(), strict=True),
            epoch=self.engine.epoch + 1,
            step=self.engine.step,
            loss=self.evaluation.loss,
            accuracy=self.evaluation.accuracy,
            classes=list(self.classes),
            mistakes=mistakes,
        )
