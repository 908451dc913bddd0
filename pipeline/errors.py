"""Every error that the program raises on purpose, in one tree, each with the exit code of the command line.

    PipelineError          1   anything below; the command line catches this and nothing else
    ├── UsageError         2   the command was called wrongly: an unknown id, a missing file
    ├── SpecError          2   a job file or an override is invalid; carries every problem found in it
    ├── QueueError         1   the queue's folder cannot be used, or a job is not in a state that allows this
    ├── JobError           1   the job's own fault: the attempt ends as failed, the message is its `why`
    │   ├── DataError          a dataset is missing, damaged or does not fit the model
    │   ├── DeviceError        the device that the job asks for is not there or is out of memory
    │   ├── CheckpointError    a checkpoint cannot be read, or belongs to another model
    │   │   └── DamagedError       what lies on the disk is not what was saved
    │   ├── DivergedError      the loss is no longer a finite number
    │   └── OwnCodeError       a module of the user's own is wrong; the attempt ends as invalid
    └── Interrupted        1   the attempt was asked to stop; its checkpoint is written and it can go on

A message says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from typing import NamedTuple


class PipelineError(Exception):
    exit_code = 1


class UsageError(PipelineError):
    exit_code = 2


class Problem(NamedTuple):
    """One thing wrong with a job file: `file:line: field: message`. `line` counts from 1; 0 means no line."""

    source: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        return f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"


class SpecError(PipelineError):
    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class QueueError(PipelineError):
    pass


class JobError(PipelineError):
    pass


class DataError(JobError):
    pass


class DeviceError(JobError):
    pass


class CheckpointError(JobError):
    pass


class DamagedError(CheckpointError):
    pass


class DivergedError(JobError):
    pass


class OwnCodeError(JobError):
    pass


class Interrupted(PipelineError):
    pass
