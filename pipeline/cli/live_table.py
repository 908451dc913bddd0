"""What `status --watch` shows: counts, a bar for each job that runs, and below them what has ended and what waits.

A line is made of parts, text with a style; who prints it makes colours of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.cli import live_cells
from pipeline.cli.live_cells import BAR, PERCENT
from pipeline.cli.short_ids import LEAST_ID, ShortIds
from pipeline.cli.terminal import COLOURS, accuracy_of, state_of
from pipeline.folding import GAP, LEAST, cut, fold, pad, width
from pipeline.queue.glances import Glance
from pipeline.queue.views import ENDED, JobView
from pipeline.wording import in_words, plural

LEAST_BAR, LEAST_WHY = 8, 4  # columns
MAX_REASON = 1_000  # characters
ROOMY, LEAST_OTHERS = 14, 5  # lines: with so many, what runs leaves these to other jobs
STYLES = {"WORKER": "dim", "NOTE": "dim", "GPU": "dim"}


class Part(NamedTuple):
    text: str
    style: str = ""


Line = list[Part]


@dataclass
class Column:
    """A column of the table of what runs. `shorten`: how its cells are cut; one of no width is left out."""

    name: str
    cells: list[str]
    shorten: Callable[[str, int], str] = cut
    width: int = 0

    def __post_init__(self) -> None:
        self.width = max(map(width, [self.name, *self.cells])) if any(self.cells) else 0


@dataclass(frozen=True)
class LiveTable:
    """columns, rows: of the terminal. bar: what is done, the half of one, and what is left."""

    short: ShortIds
    columns: int
    rows: int
    bar: tuple[str, str, str] = ("━", "╸", "─")

    def lines(self, glance: Glance, *, header: Line, hint: str = "") -> list[Line]:
        """As many as the terminal has rows, at most; the last of its rows stays free."""
        room = max(1, self.rows - 1)
        top = [header, *([[Part(cut(hint, self.columns), "yellow")]] if hint else [])]
        columns = self._columns(glance)
        others = LEAST_OTHERS if room >= ROOMY and (glance.ended or glance.waiting) else 0
        lines = [*top[:room], *self._running(glance, columns, max(1, room - len(top) - 1 - others))]
        lines += self._others(glance, columns, room - len(lines))
        return [_clipped(line, self.columns) for line in lines[:room]]

    def _columns(self, glance: Glance) -> list[Column]:
        """Those of what runs, in so many columns as there are: what people miss least gives way first."""
        running = glance.running
        has_gpu = any(job.gpu for job in running)
        others = [state_of(job) for job in [*glance.ended, *glance.waiting]]
        bar = Column("PROGRESS", ["" if live_cells.share(job) is not None else live_cells.note(job) for job in running])
        bar.width = BAR + PERCENT if running else 0
        found = [
            Column("ID", [live_cells.indented(job) for job in running] or [""], self.short.cut),
            Column("STATE", [state_of(job) for job in running]),
            bar,
            Column("EPOCH", [live_cells.epoch(job) for job in running], live_cells.numbers),
            Column("ACCURACY", [accuracy_of(job) for job in running]),
            Column("LEFT", [in_words(job.time_left_s) if job.time_left_s else "" for job in running]),
            Column("GPU", [live_cells.gpu(job).replace("NVIDIA ", "") if has_gpu else "" for job in running]),
            Column("WORKER", [job.where or job.worker for job in running], live_cells.tail),
            Column("NOTE", ["" if live_cells.fits_in_bar(job) else live_cells.note(job) for job in running]),
        ]
        ids, state = found[:2]
        ids.width = max([ids.width, *(width(job.id) for job in [*glance.ended, *glance.waiting])])
        state.width = max([state.width, *map(width, others)])
        if others:  # reasons are told beside their ids
            ids.width = min(ids.width, max(LEAST_ID, self.columns - state.width - 2 * GAP - LEAST))
        self._fit({column.name: column for column in found})
        return found

    def _fit(self, by_name: dict[str, Column]) -> None:
        least = [
            ("NOTE", 0),
            ("PROGRESS", 10 + PERCENT),
            ("ID", 30),
            ("WORKER", 12),
            ("GPU", 8),
        ]  # a note has a line below
        numbers = max(map(width, ["EPOCH", *(live_cells.numbers(cell) for cell in by_name["EPOCH"].cells)]))
        least += [
            ("EPOCH", numbers),
            ("ID", 20),
            ("PROGRESS", LEAST_BAR + PERCENT),
            ("WORKER", 0),
            ("ID", LEAST_ID),
        ]
        least += [("GPU", 3), ("GPU", 0), ("LEFT", 0), ("ACCURACY", 0), ("EPOCH", 0), ("PROGRESS", 0)]
        full = {name: column.width for name, column in by_name.items()}
        for name, smallest in least:
            column, excess = by_name[name], _total(by_name.values()) - self.columns
            if excess > 0 and column.width > smallest:
                column.width = max(smallest, column.width - excess) if smallest else 0
        for name in ("PROGRESS", "ID"):  # what was left out whole may have left some room
            column, spare = by_name[name], self.columns - _total(by_name.values())
            column.width = min(full[name], column.width + max(spare, 0)) if column.width else 0

    def _running(self, glance: Glance, columns: Sequence[Column], room: int) -> Iterator[Line]:
        if not glance.running:
            return
        shown = [column for column in columns if column.width]
        yield _joined([Part(pad(cut(column.name, column.width), column.width), "bold")] for column in shown)
        told = {column.name for column in shown}
        rows: list[Line] = []
        for number, job in enumerate(glance.running):
            lines = [_joined(self._cell(column, number, job) for column in shown)]
            if (
                "NOTE" not in told
                and not job.is_sweep
                and not live_cells.fits_in_bar(job)
                and (note := live_cells.note(job))
            ):
                lines.append([Part(cut(f"    {note}", self.columns), "dim")])
            is_last = number == len(glance.running) - 1
            if rows and len(rows) + len(lines) > room - (not is_last):
                rows.append([Part(f"... and {len(glance.running) - number:,} more that run", "dim")])
                break
            rows += lines
        yield from rows

    def _cell(self, column: Column, number: int, job: JobView) -> Line:
        text = column.cells[number]
        share = live_cells.share(job)
        if column.name == "PROGRESS" and share is not None:
            length = column.width - PERCENT
            done, half = divmod(int(2 * length * share), 2)
            bar = Part(self.bar[0] * done + self.bar[1] * half, "magenta" if job.is_sweep else "cyan")
            return [bar, Part(self.bar[2] * (length - done - half), "dim"), Part(f"{100 * share:4.0f} %")]
        style = COLOURS.get(text, "") if column.name == "STATE" else STYLES.get(column.name, "")
        return [Part(pad(column.shorten(text, column.width), column.width), style)]

    def _others(self, glance: Glance, columns: Sequence[Column], room: int) -> Iterator[Line]:
        """Rows of what has ended and of what waits, and how many more there are; half of the room for either."""
        room -= 2 if glance.running else 1  # a blank line, and the header
        if room < 1 or not (glance.ended or glance.waiting):
            return
        ended, waiting = _divide(len(glance.ended), len(glance.waiting), room)
        more = _more(glance, ended, waiting)
        if more and ended + waiting >= room:
            ended, waiting = _divide(len(glance.ended), len(glance.waiting), room - 1)
            more = _more(glance, ended, waiting)
        if glance.running:
            yield []
        spare = room - ended - waiting - bool(more)
        yield from self._rows([*glance.ended[:ended], *glance.waiting[:waiting]], columns, spare=spare)
        if more:
            yield [Part(cut(more, self.columns), "dim")]

    def _rows(self, jobs: Sequence[JobView], columns: Sequence[Column], *, spare: int) -> Iterator[Line]:
        """spare: lines that nothing else is shown in, for reasons that are longer than one."""
        ids, state = columns[:2]
        epochs, accuracies = (
            ["" if job.is_sweep else live_cells.epoch(job) for job in jobs],
            [accuracy_of(job) for job in jobs],
        )
        figures = [column for column in (Column("EPOCH", epochs), Column("ACCURACY", accuracies)) if column.width]
        widths = [column.width for column in (ids, state, *figures)]
        while (room := self.columns - sum(widths) - GAP * len(widths)) < LEAST and figures:
            figures.pop()
            widths.pop()
        room = room if room >= LEAST_WHY else 0
        names = [*("ID", "STATE"), *(column.name for column in figures), *(["WHY"] if room else [])]
        yield _joined([Part(pad(cut(name, to), to), "bold")] for name, to in zip(names, [*widths, room], strict=False))
        for number, (job, reason) in enumerate(zip(jobs, _reasons(jobs, room, spare=spare), strict=True)):
            told = state_of(job)
            texts = [self.short.cut(job.id, ids.width), cut(told, state.width)]
            texts += [column.cells[number] for column in figures]
            styles = ["", COLOURS.get(told, ""), *[""] * len(figures)]
            parts = [Part(pad(text, to), style) for text, to, style in zip(texts, widths, styles, strict=True)]
            style = "dim" if told in ("pending", "done") else ""
            first, *further = [Part(cut(line, room), style) for line in reason]
            yield _joined([part] for part in [*parts, first])
            yield from ([Part(" " * (self.columns - room)), line] for line in further)


def _reasons(jobs: Sequence[JobView], room: int, *, spare: int) -> list[list[str]]:
    """Why each is where it is, in a line; on `spare` further lines first those that failed are told whole."""
    reasons = [" ".join(job.why[:MAX_REASON].split()) for job in jobs]
    found = [[cut(reason, room)] for reason in reasons]
    for number in sorted(range(len(jobs)), key=lambda number: jobs[number].state != "failed"):
        whole = fold(reasons[number], room) if room >= LEAST else found[number]
        if len(whole) - 1 <= spare:
            found[number] = whole
            spare -= len(whole) - 1
    return found


def header_of(glance: Glance, *, place: str, at: str, columns: int) -> Line:
    """How many jobs there are of each kind, and who works; where the home is, and the time, where there is room."""
    counts = glance.counts
    num_ended = sum(counts.get(state, 0) for state in ENDED)
    failed = f" ({counts['failed']:,} failed)" if counts.get("failed") else ""
    words = [
        Part(f"{counts.get('running', 0):,} running", "cyan" if counts.get("running") else "dim"),
        Part(f"{counts.get('pending', 0):,} waiting", "yellow" if counts.get("pending") else "dim"),
        Part(f"{num_ended:,} ended{failed}", "red" if failed else "green" if num_ended else "dim"),
        Part(plural(len(glance.workers), "worker") if glance.workers else "no worker", "" if glance.workers else "red"),
    ]
    line = _joined([word] for word in words)
    room = columns - sum(width(part.text) for part in line) - GAP
    if room > width(at):
        told = cut(place, room - width(at) - GAP) if room - width(at) - GAP > len(place) // 2 else ""
        line.append(Part(f"{told}  {at}".rjust(room + GAP), "dim"))
    return line


def plain_lines(glance: Glance, *, header: Line) -> list[list[str]]:
    """The same for a program, or a file: rows that change when something happens, and not with every step."""
    has_gpu = any(job.gpu for job in glance.running)
    jobs = [*glance.running, *glance.ended, *glance.waiting]
    names = ["ID", "STATE", "EPOCH", "ACCURACY", "WORKER", *(["GPU"] if has_gpu else []), "WHY"]
    rows = [names] if jobs else []
    for job in jobs:
        is_running = job.state == "running"
        places = [(job.where or job.worker) if is_running else ""]
        places += [live_cells.gpu(job) if is_running else ""] if has_gpu else []
        why = " ".join(job.why.split())
        rows.append([live_cells.indented(job), state_of(job), live_cells.epoch(job), accuracy_of(job), *places, why])
    return [["  ".join(part.text for part in header if part.text.strip())], *rows]


def _total(columns: Iterable[Column]) -> int:
    return sum(column.width + GAP for column in columns if column.width) - GAP


def _joined(cells: Iterable[Line]) -> Line:
    """The parts of a row's cells, with a gap between two cells."""
    line: Line = []
    for cell in cells:
        line += [Part(" " * GAP), *cell] if line else cell
    return line


def _clipped(line: Line, columns: int) -> Line:
    """As much of it as there are columns."""
    found: Line = []
    for part in line:
        found.append(part if width(part.text) <= columns else Part(cut(part.text, columns), part.style))
        columns -= width(found[-1].text)
    return found


def _divide(num_ended: int, num_waiting: int, room: int) -> tuple[int, int]:
    """How many of each have a row: half of the room, or what the others leave."""
    waiting = min(num_waiting, max(room // 2, room - num_ended))
    return min(num_ended, max(room - waiting, 0)), max(waiting, 0)


def _more(glance: Glance, ended: int, waiting: int) -> str:
    """Says how many there are beside those that are shown."""
    counts = glance.counts
    states = ENDED if glance.state is None else {glance.state}
    num_ended = sum(counts.get(state, 0) for state in states) if glance.ended else 0
    left = {"that ended": num_ended - ended, "that wait": counts.get("pending", 0) - waiting if glance.waiting else 0}
    told = " and ".join(f"{count:,} more {which}" for which, count in left.items() if count > 0)
    return f"... and {told}" if told else ""
