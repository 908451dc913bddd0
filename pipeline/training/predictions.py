"""The predictions of an evaluation, image by image: what each held-out image was taken for, and how surely."""

from __future__ import annotations

from functools import cached_property

from pipeline.board import figures, projector
from pipeline.board.images import in_rgb, shrunk, thumbnail
from pipeline.data.dataset import Dataset
from pipeline.home.evaluation_record import EvaluationRecord, Mistake
from pipeline.training.evaluation import Evaluation
from pipeline.training.moment import Moment

MAX_MISTAKES = 20


class Predictions:
    """Nothing is worked out before it is asked for."""

    def __init__(self, dataset: Dataset, evaluation: Evaluation) -> None:
        self.split, self.classes, self.evaluation = dataset.held_out, dataset.classes, evaluation
        self.labels, self.predicted, self.confidence = self.split.labels, evaluation.predicted, evaluation.confidence

    @cached_property
    def mistakes(self) -> list[int]:
        """The indices of wrong predictions, the most confident first, up to 20."""
        wrong = (self.predicted != self.labels).nonzero().flatten()
        return wrong[self.confidence[wrong].argsort(descending=True, stable=True)[:MAX_MISTAKES]].tolist()

    def of_images(self, indices: list[int], *, with_files: bool = False) -> list[figures.Prediction]:
        """Returns what a figure of these images needs. with_files: the names of their files as well."""
        images = in_rgb(shrunk(self.split.read(indices), figures.IMAGE)).numpy()
        return [
            figures.Prediction(
                image,
                self.classes[self.labels[index]],
                self.classes[self.predicted[index]],
                float(self.confidence[index]),
                self.split.file_of(index) if with_files else None,
            )
            for image, index in zip(images, indices, strict=True)
        ]

    def samples(self, indices: list[int]) -> projector.Samples:
        """Returns what the projector needs of these images."""
        images = self.split.read(indices)
        return projector.Samples(indices, images, self.labels[indices], self.predicted[indices], self.classes)

    def record(self, moment: Moment) -> EvaluationRecord:
        """Returns the evaluation as the run keeps it. moment: at which it was made."""
        images = self.split.read(self.mistakes) if self.mistakes else ()
        mistakes = [
            Mistake(
                index,
                label=int(self.labels[index]),
                predicted=int(self.predicted[index]),
                probability=float(self.confidence[index]),
                png=thumbnail(image),
                file=self.split.file_of(index),
            )
            for index, image in zip(self.mistakes, images, strict=True)
        ]
        confusion = self.evaluation.confusion.to_sparse()
        return EvaluationRecord.of(
            zip(*confusion.indices().tolist(), confusion.values().tolist(), strict=True),
            epoch=moment.epoch,
            step=moment.step,
            loss=self.evaluation.loss,
            accuracy=self.evaluation.accuracy,
            classes=list(self.classes),
            mistakes=mistakes,
        )
