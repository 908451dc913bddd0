"""Held-out images for TensorBoard's projector: as pixels, and as the features that the network's last layer sees.

It leaves `projector_config.pbtxt` and `projector/` in the run's folder. `SummaryWriter.add_embedding` is not used: it
writes pixels and sprite anew each time, at a second a thousand images, and lists a repeated step twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import EmbeddingInfo, ProjectorConfig

from pipeline.board.images import in_rgb, png, shrunk
from pipeline.home import durable

CONFIG = "projector_config.pbtxt"  # where TensorBoard looks
NUM_IMAGES = 250
MAX_VALUES = 8_192  # of an image's features: 15 MB of text
PIXELS = 32  # a side; of larger images the pixels would be more than a browser takes
_GREY_LEVELS = [f"{level / 255:.4g}" for level in range(256)]


@dataclass(frozen=True)
class Samples:
    """The same held-out images each time. images: uint8 (N, H, W, C). labels, predicted: (N,)."""

    indices: Sequence[int]
    images: torch.Tensor
    labels: torch.Tensor
    predicted: torch.Tensor
    classes: Sequence[str]


def add_embeddings(folder: Path, samples: Samples, features: torch.Tensor | None, *, step: int) -> None:
    """Writes what the projector shows into the run's folder.

    features: float32 (N, values); None where the network has no last layer to look at.
    """
    projector = folder / "projector"
    durable.make_folder(projector)
    shown = shrunk(samples.images, PIXELS)
    if not (projector / "pixels.tsv").exists():
        _write(projector / "sprite.png", _sprite(shown))
        rows = shown.flatten(1).tolist()
        _write(projector / "pixels.tsv", _lines("\t".join([_GREY_LEVELS[level] for level in row]) for row in rows))
    _write(projector / f"labels-{step}.tsv", _table(samples))
    if features is not None:
        rows = features.tolist()
        _write(projector / f"features-{step}.tsv", _lines("\t".join([f"{x:.5g}" for x in row]) for row in rows))
    width = 0 if features is None else features.shape[1]
    _write(folder / CONFIG, _config(projector, step, shown=shown, width=width))


def remove_embeddings(folder: Path) -> None:
    """Removes what an attempt that came to nothing has left; its images may be others."""
    durable.ask_first()
    shutil.rmtree(folder / "projector", ignore_errors=True)
    (folder / CONFIG).unlink(missing_ok=True)


def _config(projector: Path, step: int, *, shown: torch.Tensor, width: int) -> bytes:
    """Lists all that lies there up to this step, without what a killed attempt left of later ones."""
    steps = sorted(int(path.stem.removeprefix("features-")) for path in projector.glob("features-*.tsv"))
    config = ProjectorConfig()
    for earlier in [s for s in reversed(steps) if s <= step]:
        name, file = f"features at step {earlier}", f"features-{earlier}.tsv"
        config.embeddings.append(_entry(name, file, earlier, shown, width))
    config.embeddings.append(_entry("pixels", "pixels.tsv", step, shown, shown[0].numel()))
    text: str = text_format.MessageToString(config)
    return text.encode()


def _entry(name: str, file: str, step: int, shown: torch.Tensor, width: int) -> EmbeddingInfo:
    info = EmbeddingInfo(
        tensor_name=name,
        tensor_path=f"projector/{file}",
        tensor_shape=[len(shown), width],  # else TensorBoard reads all vectors to find out (tensorboard_main.py)
        metadata_path=f"projector/labels-{step}.tsv",
    )
    info.sprite.image_path = "projector/sprite.png"
    info.sprite.single_image_dim.extend(shown.shape[1:3])
    return info


def _table(samples: Samples) -> bytes:
    names = [" ".join(name.split()) or "?" for name in samples.classes]  # a tab would begin a column
    rows = zip(samples.labels.tolist(), samples.predicted.tolist(), samples.indices, strict=True)
    return _lines(["label\tpredicted\tindex", *(f"{names[i]}\t{names[j]}\t{index}" for i, j, index in rows)])


def _sprite(images: torch.Tensor) -> bytes:
    """Returns a square of images, row by row, as the projector cuts it: a PNG file."""
    columns = -(-(len(images) ** 0.5) // 1)
    side = int(columns)
    size = images.shape[1]
    cells = torch.full((side * side, size, size, 3), 255, dtype=torch.uint8)
    cells[: len(images)] = in_rgb(images)
    return png(cells.view(side, side, size, size, 3).permute(0, 2, 1, 3, 4).reshape(side * size, side * size, 3))


def _lines(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def _write(path: Path, content: bytes) -> None:
    durable.replace(path, lambda file: file.write(content))
