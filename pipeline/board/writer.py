"""The one writer of a run's event files, `events.out.tfevents.<time>.<host>.<process>.<number>.<attempt>`.

Each attempt writes a file of its own and tells TensorBoard from which step on it speaks (`purge_step`), so that what a
killed attempt wrote after its last checkpoint disappears from the curve.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text import metadata as text_metadata
from torch.utils.tensorboard import SummaryWriter

from pipeline.home.paths import RunPaths

WRITER_THREAD = "tensorboard.summary.writer.event_file_writer"  # the module that its class is from
FLUSH_S = 5  # how long a point may wait before TensorBoard can see it


class Board:
    """What is written for TensorBoard by one attempt."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        """`first_step`: the first step that this attempt may write; 0 for a new run."""
        self.folder = folder
        suffix = f".{len(RunPaths(folder).events()) + 1}"  # the order of the attempts' files: a clock may go back
        self.writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=FLUSH_S, filename_suffix=suffix)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes all values of a step in one event, which costs what a single one does."""
        self.add(step, Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]))

    def add(self, step: int, *summaries: Summary) -> None:
        """Writes summaries in one event."""
        together = Summary(value=[value for summary in summaries for value in summary.value])
        self.writer._get_file_writer().add_summary(together, step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Writes a text. `SummaryWriter.add_text` writes a list of one, framed twice, and lengthens the tag."""
        tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode("utf-8", "backslashreplace")])
        value = Summary.Value(tag=tag, metadata=text_metadata.create_summary_metadata(tag, ""), tensor=tensor)
        self.add(step, Summary(value=[value]))

    def flush(self) -> None:
        """Puts what was written onto stable storage: a checkpoint that is durable must not be ahead of its curve."""
        self.writer.flush()
        for path in RunPaths(self.folder).events():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.close()


@contextlib.contextmanager
def quiet_writer_thread() -> Iterator[None]:
    """Let the writer's thread print no traceback: what it meets (a full disk, say), the next write or flush raises."""
    before = threading.excepthook

    def on_error(arguments: threading.ExceptHookArgs) -> None:
        if type(arguments.thread).__module__ != WRITER_THREAD:
            before(arguments)

    threading.excepthook = on_error
    try:
        yield
    finally:
        threading.excepthook = before
