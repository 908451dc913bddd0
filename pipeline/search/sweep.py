"""A sweep that runs: it asks for trials, submits each as a job, follows them, and tells Optuna what they came to.

    ask     values of the next trial      into Optuna's journal
    record  its number and its job's id   into trials.json         from here on it is never asked for again
    submit  its job                       into the queue
    tell    how the job has ended         into Optuna's journal    a second time changes nothing

Each step is durable before the next, and is found and gone on from after a kill between two of them. One trial is
always ready before somebody asks for it, so that however many workers there are, none of them waits.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from pipeline.errors import PipelineError, QueueError, SpecError
from pipeline.home import durable, epoch_record, sequence
from pipeline.home.paths import Home
from pipeline.home.records import End, Outcome, Progress, now
from pipeline.home.sweep_record import FOR_ITS_SWEEP, SweepRecord, Trial
from pipeline.jobfile.search import Range
from pipeline.jobfile.spec import Spec
from pipeline.jobfile.sweep import with_values
from pipeline.queue import repair, sweeps
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket
from pipeline.search.standing import Standing
from pipeline.search.study import Study
from pipeline.stop import Stop
from pipeline.wording import plain, plural

POLL_S = 0.2
GONE_S = 10.0  # for which a trial's ticket is looked for
MAX_NAME = 64
EPOCHS = "train.epochs"


class Sweep:
    def __init__(self, home: Home, ticket: Ticket, attempt: int, stop: Stop, log: Callable[[str], None]) -> None:
        """Takes up the sweep where it was. Raises SpecError where this version does not take its job file."""
        self.home, self.ticket, self.attempt, self.stop, self.log = home, ticket, attempt, stop, log
        self.queue = Queue(home)
        self.run = home.run(ticket.id)
        self.spec = ticket.validated()
        assert self.spec.search is not None
        self.search = self.spec.search
        self.record = SweepRecord.read(self.run.trials) or self.begun()
        self.study = Study(
            self.run.study,
            self.search,
            epochs=self.most_epochs(),
            seed=self.spec.train.seed,
            fractional={key for key in self.search.space if self.takes_fractions(key)},
            recorded=self.record.trials,
        )
        self.standing = Standing(self.record.num_trials, self.search.objectives)
        self.sizes: dict[int, int] = {}  # of their files of figures, when they were read last
        self.gone_since: dict[int, float] = {}  # on the monotonic clock
        self.states: dict[int, str | None] = {}  # of the tickets of the others
        self.progress = Progress(attempt)

    def begun(self) -> SweepRecord:
        """Returns the record of a sweep without trials, which is written before anything else."""
        for path in (self.run.trials, self.run.study):
            if durable.is_there(path):
                what = "is damaged or gone, so that its trials are not known any more; submit the job file again"
                raise PipelineError(f"{self.run.trials}: {what}")
        objectives = self.search.objectives
        high, low = ([tag for tag, is_high in objectives if is_high is kind] for kind in (True, False))
        record = SweepRecord(self.search.num_trials, high, low, list(self.search.space))
        record.write(self.run.trials)
        return record

    def most_epochs(self) -> int:
        """That a trial may have, for they may be searched too."""
        values = self.search.space.get(EPOCHS, ())
        most = values.high if isinstance(values, Range) else max(values, default=self.spec.train.epochs)
        return math.ceil(most)

    def takes_fractions(self, key: str) -> bool:
        """Tells whether a field whose range is in whole numbers takes others too, as a learning rate from 0 to 1."""
        values = self.search.space[key]
        if not isinstance(values, Range) or not values.is_whole or key == EPOCHS:
            return False
        first = {k: v.low if isinstance(v, Range) else v[0] for k, v in self.search.space.items()}
        try:
            dataclasses.replace(self.ticket, spec=self.tree(first | {key: values.low + 0.5})).validated()
        except SpecError:
            return False
        return True

    def tree(self, values: dict[str, Any]) -> dict[str, Any]:
        return with_values(self.ticket.spec, values)

    def go(self) -> tuple[Outcome, str]:
        """Runs the sweep to its end, and returns that. Raises Interrupted when asked to stop, and OSError."""
        self.recover()
        while True:
            self.stop.check()
            for trial in self.open_trials():
                self.follow(trial)
            if why := self.standing.hopeless():
                return "failed", why
            if self.wants_trial():
                self.ask()
                continue
            self.write_progress()
            if not self.open_trials() and len(self.record.trials) >= self.record.num_trials:
                return ("succeeded" if self.standing.scores else "failed"), self.standing.summary()
            time.sleep(POLL_S)

    def open_trials(self) -> list[Trial]:
        return [trial for trial in self.record.trials if trial.number not in self.standing.ends]

    def wants_trial(self) -> bool:
        """Tells whether a further trial is due: none waits for a worker any more."""
        is_one_ready = any(self.states.get(trial.number) == "pending" for trial in self.open_trials())
        is_complete = len(self.record.trials) >= self.record.num_trials
        return not (is_complete or is_one_ready or self.queue.stop_request(self.ticket.id))

    def recover(self) -> None:
        """Goes on after whatever an earlier process did last."""
        if self.record.trials:
            self.log(f"goes on after {plural(len(self.record.trials), 'trial')}")
        for trial in self.record.trials:
            state = self.queue.tickets.state(trial.job)
            end = self.queue.records.sound_end(trial.job)
            if self.study.is_told(trial.number):
                self.keep(trial, end, by_another=True)
                if end is not None:  # else somebody has retried it
                    self.queue.records.clear(self.queue.paths.cancel_request(trial.job))
            elif state is None and end is None:
                self.submit(trial)

    # Asking

    def ask(self) -> None:
        """Asks for the next trial, and submits its job."""
        number = len(self.record.trials)
        values = self.study.ask(number)
        (job_id,) = sequence.new_ids(self.home, [self.name_of(number)])
        trial = Trial(number, job_id, values)
        self.record = dataclasses.replace(self.record, trials=[*self.record.trials, trial])
        self.record.write(self.run.trials)
        self.submit(trial)

    def name_of(self, number: int) -> str:
        """Returns the name of a trial's job, with leading zeros: TensorBoard sorts by letters."""
        digits = f"{number:0{len(str(self.record.num_trials - 1))}}"
        return f"{self.ticket.name[: MAX_NAME - len(digits) - 1]}-{digits}"

    def submit(self, trial: Trial) -> None:
        """Puts a trial's job into the queue; a job whose values do not fit together ends there as invalid."""
        name = self.name_of(trial.number)
        tree = {**self.tree(trial.values), "name": name}
        ticket = dataclasses.replace(
            self.ticket,
            id=trial.job,
            name=name,
            submitted_at=now(),
            spec=tree,
            sweep=self.ticket.id,
            trial=trial.number,
            after=[],
        )
        try:
            spec: Spec = ticket.validated()
            ticket = dataclasses.replace(ticket, spec=spec.model_dump(mode="json"), modules=spec.own_files())
        except SpecError:
            pass
        self.queue.submit(ticket)
        self.states[trial.number] = "pending"
        self.log(f"trial {trial.number}: {in_a_line(trial.values)}: {trial.job}")

    # Following

    def follow(self, trial: Trial) -> None:
        """Reports a trial's epochs, prunes it where others are ahead, and tells how it has ended."""
        self.report(trial)
        state = self.states[trial.number] = self.queue.tickets.state(trial.job)
        end = None if state in ("pending", "running") else self.queue.records.sound_end(trial.job)
        if end is not None and end.outcome == "cancelled" and any(why in end.why for why in FOR_ITS_SWEEP):
            self.take_up(trial)
        elif end is not None:
            self.report(trial)
            self.tell(trial, end)
        elif state is None:
            self.look_for(trial)

    def take_up(self, trial: Trial) -> None:
        """Queues a trial again that was cancelled with its sweep, unless the sweep is being cancelled right now."""
        if self.queue.stop_request(self.ticket.id):
            return
        try:
            repair.retry(self.queue, trial.job)
        except QueueError as error:
            if isinstance(error.__cause__, OSError):
                raise
            self.log(str(error))  # somebody has it in hands: it is looked at again with the next turn

    def report(self, trial: Trial) -> None:
        if len(self.search.objectives) > 1:
            return
        path = self.home.run(trial.job).epochs
        try:
            size = path.lstat().st_size
        except OSError:
            return
        if size == self.sizes.get(trial.number):
            return
        self.sizes[trial.number] = size
        (tag, _), *_ = self.search.objectives
        epochs = epoch_record.read(path)
        figures = {epoch: sweeps.value_of(metrics, tag) for epoch, metrics in epochs.items()}
        values = {epoch: value for epoch, value in figures.items() if value is not None}
        if self.study.report(trial.number, values) and self.states.get(trial.number) == "running":
            last = max(values)
            name = sweeps.tag_in(epochs[last], tag)
            repair.prune(self.queue, trial.job, f"{name} was {values[last]:.4g} after epoch {last}")

    def look_for(self, trial: Trial) -> None:
        """Gives up a trial whose ticket somebody has removed."""
        since = self.gone_since.setdefault(trial.number, time.monotonic())
        if time.monotonic() > since + GONE_S:
            self.log(f"trial {trial.number}: its ticket is gone")
            self.study.tell(trial.number, "lost", None)
            self.keep(trial, None)

    def tell(self, trial: Trial, end: End) -> None:
        found = self.keep(trial, end)
        self.study.tell(trial.number, end.outcome, found.values if found else None)
        self.queue.records.clear(self.queue.paths.cancel_request(trial.job))  # that came when it had just ended
        figures = "" if found is None else f", {self.standing.in_words(found)}"
        what = end.why if end.why.startswith(end.outcome) else f"{end.outcome}: {end.why}"
        self.log(f"trial {trial.number}: {what}{figures}")

    def keep(self, trial: Trial, end: End | None, *, by_another: bool = False) -> sweeps.Score | None:
        """Counts a trial that has ended. by_another: an earlier process has told Optuna. Returns its score, if any."""
        figures = epoch_record.read(self.home.run(trial.job).epochs) if end and end.outcome == "succeeded" else {}
        return self.standing.keep(trial.number, end, figures, by_another=by_another)

    def write_progress(self) -> None:
        running = sum(self.states.get(trial.number) == "running" for trial in self.open_trials())
        progress = Progress(
            self.attempt,
            epoch=len(self.standing.ends),
            epochs=self.record.num_trials,
            metrics=self.standing.metrics(),
            time_left_s=self.standing.time_left_s(running),
            note=self.standing.summary(),
        )
        if progress != self.progress:
            self.progress = progress
            durable.replace_json(self.run.progress, progress.to_json())


def in_a_line(values: dict[str, Any]) -> str:
    """Returns the values of a trial as text: `lr 0.01, depth 13`."""
    names = sweeps.short_names(list(values))
    return ", ".join(f"{name} {plain(value)}" for name, value in zip(names, values.values(), strict=True))
