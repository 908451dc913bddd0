"""The one writer of a run's event files.

Each attempt writes a file of its own and tells TensorBoard from which step on it speaks (`purge_step`), so that what a
killed attempt wrote after its last checkpoint disappears from the curve.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboard.compat import tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter, _AsyncWriter
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from pipeline.board import event_file
from pipeline.home import durable

FLUSH_S = 5  # how long a point may wait before TensorBoard can see it
MAX_QUEUE = 10  # events
VERSION = "brain.Event:2"
WRITER_THREAD = "tensorboard.summary.writer.event_file_writer"  # the module that its class is from


class Board:
    """What is written for TensorBoard by one attempt."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        """`first_step`: the first step that this attempt may write; 0 for a new run."""
        self.folder = folder
        durable.make_folder(folder)
        self.file = event_file.create(folder)
        self.writer = _Writer(self.file, first_step=first_step)

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

    def image(self, tag: str, png: bytes, *, height: int, width: int, step: int) -> None:
        """Writes a PNG file of three channels."""
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self.add(step, Summary(value=[Summary.Value(tag=tag, image=image)]))

    def flush(self) -> None:
        """Puts what was written onto stable storage: a checkpoint that is durable must not be ahead of its curve."""
        self.writer.flush()
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it: the job goes on without
            fd = durable.open_plain(self.file)
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


class _Writer(SummaryWriter):
    """torch's writer into a file that is there already; it would choose the name by the clock."""

    file_writer: Any
    all_writers: Any

    def __init__(self, path: Path, *, first_step: int) -> None:
        self.path = path
        super().__init__(str(path.parent), purge_step=first_step)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            self.file_writer = _FileWriter(self.path)
            self.all_writers = {str(self.path.parent): self.file_writer}
            self.file_writer.add_event(Event(file_version=VERSION), self.purge_step)
            self.file_writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), self.purge_step)
        return self.file_writer


class _FileWriter(FileWriter):
    def __init__(self, path: Path) -> None:
        self.event_writer = _EventFileWriter(path)


class _EventFileWriter(EventFileWriter):  # type: ignore[misc] # it has no types
    def __init__(self, path: Path) -> None:
        self._logdir, self._file_name = str(path.parent), str(path)
        self._general_file_writer = tf.io.gfile.GFile(self._file_name, "wb")
        self._async_writer = _AsyncWriter(RecordWriter(self._general_file_writer), MAX_QUEUE, FLUSH_S)
        self.add_event(Event(wall_time=time.time(), file_version=VERSION))
        self.flush()
