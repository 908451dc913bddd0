"""A recording of some steps by PyTorch's profiler.

It leaves `profile/steps-A-B.pt.trace.json.gz` in the run's folder, for ui.perfetto.dev or chrome://tracing, and the
operators that took longest as text. TensorBoard's plugin for such files is no longer kept up, and not needed.
"""

from __future__ import annotations

import gzip
import os
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined] # not in its __all__
from torch.profiler import ProfilerActivity

from pipeline.board import tags, texts
from pipeline.board.writer import Board
from pipeline.home import durable

NUM_STEPS = 5
FIRST = 10  # the first steps are of no use: they allocate, and choose kernels
TOP = 20


def is_recorded(board: Board) -> bool:
    """Tells whether an earlier attempt has left a trace."""
    return any((board.folder / "profile").glob("*.pt.trace.json.gz"))


class Profile:
    """Records the steps between its two edges."""

    def __init__(self, board: Board, *, first_step: int, num_steps: int, device: torch.device) -> None:
        """first_step: of this attempt, num_steps: of the whole run, both counted as steps taken so far."""
        self.board, self.device = board, device
        self.before = first_step + min(FIRST, max(0, num_steps - first_step - NUM_STEPS))
        self.last = min(self.before + NUM_STEPS, num_steps)
        self.edges = (self.before, self.last)  # the steps after which recording begins and ends
        self.profiler: Any = None

    def after(self, step: int) -> None:
        """Begins or ends the recording where this is an edge. step: the number of steps taken so far."""
        if step == self.before:
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it prints of its own workings, and of a missing GPU
            activities = [ProfilerActivity.CPU]
            if self.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self.profiler = torch.profiler.profile(activities=activities, acc_events=True)
            self.profiler.start()
        elif step == self.last and self.profiler is not None:
            profiler, self.profiler = self.profiler, None
            profiler.stop()
            self._write(profiler)

    def close(self) -> None:
        """Ends the recording of an attempt that ends in between; what was recorded is lost."""
        if self.profiler is not None:
            profiler, self.profiler = self.profiler, None
            profiler.stop()

    def _write(self, profiler: torch.profiler.profile) -> None:
        folder = self.board.folder / "profile"
        durable.make_folder(folder)
        first = self.before + 1
        path = folder / f"steps-{first}-{self.last}.pt.trace.json.gz"
        raw = folder / ".trace.json"  # here, as a name in .gz would make it write to the temporary folder first
        profiler.export_chrome_trace(str(raw))
        durable.replace(path, lambda file: file.write(gzip.compress(raw.read_bytes())))
        raw.unlink()
        heading = f"Steps {first} to {self.last}; the whole trace is in `profile/{path.name}`, for ui.perfetto.dev.\n\n"
        self.board.text(tags.TOP_OPERATORS, heading + self._table(profiler), self.last)

    def _table(self, profiler: torch.profiler.profile) -> str:
        on_device = self.device.type == "cuda"

        def own(event: Any) -> float:
            return float(event.self_device_time_total if on_device else event.self_cpu_time_total)

        # A GPU's kernels and annotations have entries of their own beside the operators that they belong to.
        operators = [event for event in profiler.key_averages() if event.device_type == DeviceType.CPU]
        events = sorted(operators, key=own, reverse=True)
        total = sum(map(own, events)) or 1.0
        rows = [
            (f"`{e.key}`", str(e.count), f"{own(e) / 1000:.2f}", f"{100 * own(e) / total:.1f} %") for e in events[:TOP]
        ]
        return texts.table(("operator", "calls", f"own {'GPU' if on_device else 'CPU'} time, ms", "share"), rows)
