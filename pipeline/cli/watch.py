"""`status --watch`: the jobs of a home as they change, on a terminal in place, elsewhere as lines when something has.

On a terminal it draws on the alternate screen, as an editor does, so that a terminal that changes its size spoils
nothing; when it ends, the last table stays below the command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from pipeline.cli.live_table import Line, LiveTable, Part, header_of, plain_lines
from pipeline.cli.short_ids import ShortIds
from pipeline.cli.streams import drop_unwritten_output
from pipeline.cli.terminal import NEXT, RECENT, console
from pipeline.folding import width
from pipeline.home import durable
from pipeline.queue.glances import Glance, Watcher
from pipeline.queue.pausing import PAUSED
from pipeline.wording import table

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.queue.job_queue import Queue

EVERY_S = 1.0
MOST_S = 30.0
SHARE = 20  # of a processor it takes one part in so many, or less: where a look takes long, the next one comes later
BEGIN, END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor
HOME, END_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(queue: Queue, *, state: str | None, everything: bool) -> None:
    """Goes on until it is interrupted, or nobody reads it any more."""
    look = Looking(queue, state, everything=everything)
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not (terminal := console()).is_dumb_terminal:
            watch_on_terminal(look, terminal)
        else:
            watch_in_lines(look)


class Looking:
    """Looks at the jobs, and says what holds all of them up; what the disk does not give now, too."""

    def __init__(self, queue: Queue, state: str | None, *, everything: bool) -> None:
        self.queue, self.state, self.everything = queue, state, everything
        self.watcher = Watcher(queue)
        self.glance = Glance({})
        self.hint = "looking at the jobs ..."
        self.wait_s = 0.0
        self.short = ShortIds(self.watcher.all_ids)
        self._num_changes = 0
        self._spent_s: float | None = None  # the processor time at the end of the last look

    def again(self, most: int) -> None:
        """Looks once more; `wait_s` is how long to wait for the next time."""
        try:
            self.glance = self.watcher.look(most=most, state=self.state, with_trials=self.everything)
            self.hint = self._what_holds_up()
        except OSError as error:
            self.hint = f"the queue cannot be read now: {durable.in_words(error)}"
        if self._num_changes != self.watcher.num_changes:
            self._num_changes, self.short = self.watcher.num_changes, ShortIds(self.watcher.all_ids)
        spent_s = time.process_time()
        cost_s = 0.0 if self._spent_s is None else spent_s - self._spent_s  # the first look reads what no other does
        self._spent_s = spent_s
        self.wait_s = min(max(EVERY_S, SHARE * cost_s), MOST_S)

    def _what_holds_up(self) -> str:
        """Why no job that waits will be started, if that is so."""
        if self.queue.is_paused():
            return PAUSED
        if not sum(self.glance.counts.values()):
            return f"no jobs in {self.queue.home.root}; submit one with `make submit JOB=digits`"
        if self.glance.counts.get("pending") and not self.glance.workers:
            return "no worker is running: start one with `make up` or `make worker`"
        return ""


def watch_in_lines(looking: Looking) -> None:
    """Prints the table, and once more whenever it is another one. Ends quietly when nobody reads it any more."""
    reader = select.poll()
    reader.register(sys.stdout, 0)  # asked for nothing, it tells of a pipe whose other end is closed
    shown: list[str] = []
    most = sys.maxsize if looking.everything else max(RECENT, NEXT)
    while True:
        looking.again(most)
        header = header_of(looking.glance, place="", at="", columns=0)
        counts, *rows = plain_lines(looking.glance, header=header)
        lines = [*counts, *([looking.hint] if looking.hint else []), *(table(rows) if rows else [])]
        try:
            if lines != shown:
                sys.stdout.write("\n".join([*([""] if shown else []), *lines, ""]))
                sys.stdout.flush()
        except BrokenPipeError:
            drop_unwritten_output()
            return
        shown = lines
        if any(
            told & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, told in reader.poll(1000 * looking.wait_s)
        ):
            drop_unwritten_output()
            return


def watch_on_terminal(looking: Looking, terminal: Console) -> None:
    with Screen(terminal) as screen:
        screen.draw(_lines(looking, *screen.size))
        while True:
            looking.again(screen.size.lines)
            until = time.monotonic() + looking.wait_s
            while (left_s := until - time.monotonic()) > 0:
                screen.draw(_lines(looking, *screen.size))
                if screen.wait(left_s):  # or its size is another one
                    return


def _lines(looking: Looking, columns: int, rows: int) -> list[Line]:
    home = looking.queue.home
    if not looking.watcher.num_changes:
        return [[Part(looking.hint)]]
    header = header_of(looking.glance, place=str(home.root), at=time.strftime("%H:%M:%S"), columns=columns)
    shown = LiveTable(looking.short, columns, rows)
    return shown.lines(looking.glance, header=header, hint=looking.hint)


class Screen:
    """The terminal while it is drawn on. However that ends, it is as it was, with the last lines on it."""

    def __init__(self, terminal: Console) -> None:
        self.terminal = terminal
        self.text = ""
        self.woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stack = contextlib.ExitStack()
        self._settings: list[Any] = []  # of the terminal, before

    def __enter__(self) -> Screen:
        self._stack.callback(self._show_last)
        self._stack.callback(self._leave)
        self._stack.enter_context(_signals({signal.SIGTERM: _exit, signal.SIGHUP: _exit, signal.SIGTSTP: self._pause}))
        self._stack.enter_context(_signals({signal.SIGWINCH: _nothing}))
        self._stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False))
        self._enter()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            self._stack.close()

    @property
    def size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return os.terminal_size((80, 24))
        return os.terminal_size((size.columns or 80, size.lines or 24))

    def draw(self, lines: Sequence[Line]) -> None:
        """Writes over what is there, all at once; what is longer than it is wiped."""
        painted = list(map(self._painted, lines))
        self.text = "\n".join(painted)
        # wiped before it is written: behind a line that is full, some terminals would wipe its last letter
        self._write(HOME + "".join(f"{END_OF_LINE}{line}\n" for line in painted) + BELOW)

    def wait(self, seconds: float) -> bool:
        """Waits for so long, or until the size is another one; whether `q` was pressed."""
        keys = [sys.stdin.fileno()] if _is_terminal(sys.stdin) else []
        ready, _, _ = select.select([self.woken, *keys], [], [], seconds)
        if self.woken in ready:
            os.read(self.woken, 4096)
        if not set(keys) & set(ready):
            return False
        pressed = os.read(keys[0], 1024)
        return not pressed or b"q" in pressed.lower()

    def _painted(self, line: Line) -> str:
        from rich.text import Text

        text = Text().join(Text(_printable(part.text), part.style) for part in line)
        with self.terminal.capture() as captured:
            self.terminal.print(text, soft_wrap=True, end="")
        return captured.get()

    def _enter(self) -> None:
        """Keys that are pressed are not written onto the table, and are read one by one; Ctrl-C does what it does."""
        import termios

        if _is_terminal(sys.stdin):
            self._settings = termios.tcgetattr(sys.stdin.fileno())
            ours = [*self._settings]
            ours[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, ours)
        self._write(BEGIN)

    def _leave(self) -> None:
        import termios

        if self._settings:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._settings)
            self._settings = []
        self._write(END)

    def _show_last(self) -> None:
        self._write(f"{self.text}\n" if self.text else "")

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the terminal is the shell's until this goes on."""
        del frame
        self._leave()
        before = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # it stops here
        signal.signal(number, before)
        self._enter()

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _printable(text: str) -> str:
    """What a job says may hold what moves the cursor. As wide as it was: what takes no column is left out."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else "" if width(one) == 0 else "?" for one in text)


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def _exit(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)


def _nothing(number: int, frame: FrameType | None) -> None:
    """That it was called wakes whoever waits."""


@contextlib.contextmanager
def _signals(handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
