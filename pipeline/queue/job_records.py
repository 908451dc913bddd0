"""A job's records as the holder of its lease reads and writes them.

What is damaged, or lies in the way of a record and is no file, goes to quarantine, and the job goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import Attempts, End, Entry, StopRequest
from pipeline.home.sweep_record import SweepRecord
from pipeline.queue.tickets import Tickets


@dataclass(frozen=True)
class JobRecords:
    home: Home
    tickets: Tickets

    def sound_end(self, job_id: str) -> End | None:
        """Returns how the job ended; None where no end is recorded, or a damaged one. It changes nothing."""
        return End.from_json(durable.read_json(self.tickets.paths.end_text(job_id), limit=End.MAX_BYTES))

    def recorded_end(self, job_id: str) -> End | None:
        """Returns how the job ended; None where it has not."""
        path = self.home.queue.end(job_id)
        self._make_way_for_folder(path.parent)
        was_there = durable.is_there(path)  # asked before it is read: one that comes meanwhile is not damaged
        end = End.read(path)
        if end is None and was_there:
            self.tickets.quarantine(path, "it is not a job's end; the job counts as not ended")
        return end

    def sound_attempts(self, job_id: str) -> Attempts:
        """Returns the attempts, at least as many as the highest number of a log, so that none is given twice."""
        attempts = self._recorded_attempts(job_id)
        for number in range(attempts.number + 1, max(self.home.run(job_id).log_numbers(), default=0) + 1):
            why = f"not known: the record of attempts does not have attempt {number}"
            attempts.entries.append(Entry(outcome="lost", why=why))
        return attempts

    def _recorded_attempts(self, job_id: str) -> Attempts:
        path = self.home.queue.attempts(job_id)
        was_there = durable.is_there(path)
        attempts = Attempts.read(path)
        if attempts is None and was_there:
            self.tickets.quarantine(path, "it is not a record of attempts; they are counted by their logs")
        return attempts or Attempts()

    def write_attempts(self, job_id: str, attempts: Attempts) -> None:
        path = self.home.queue.attempts(job_id)
        self._make_way_for_folder(path.parent)
        self.make_way(path)
        attempts.write(path)

    def ask_to_stop(self, job_id: str, request: StopRequest, *, gives_way: bool = False) -> None:
        """Leaves a request, unless the job has ended. gives_way: to one that is there already."""
        path = self.home.queue.cancel_request(job_id)
        self.make_way(path)
        if gives_way and durable.is_there(path):
            return
        durable.replace_json(path, request.to_json())
        if self.tickets.state(job_id) not in ("pending", "running"):  # whoever has ended it may have seen none
            self.clear(path)

    def stop_trials(self, sweep_id: str, why: str) -> None:
        """Has the trials of a sweep end that wait or run: before it ends, so that none can be left to itself."""
        record = SweepRecord.read(self.home.run(sweep_id).trials)
        for trial in record.trials if record else []:
            if self.tickets.state(trial.job) in ("pending", "running"):
                self.ask_to_stop(trial.job, StopRequest(why=why), gives_way=True)

    def make_way(self, path: Path) -> None:
        """Puts what is no file, and lies where one is to be written, into quarantine."""
        if durable.is_there(path) and not durable.is_plain(path):
            self.tickets.quarantine(path, "it lies where the program writes a file")

    def _make_way_for_folder(self, path: Path) -> None:
        if durable.is_there(path) and not path.is_dir():
            self.tickets.quarantine(path, "it is not a folder")

    def make_way_for_run(self, job_id: str) -> None:
        """Lets an attempt write into its run's folder, and no earlier one's result be taken for its own."""
        run = self.home.run(job_id)
        self._make_way_for_folder(run.root)
        for path in (run.spec, run.progress, run.order):
            self.make_way(path)
        self.clear(run.result)

    def clear(self, path: Path) -> None:
        """Removes a file that may be there; what has its name and is none goes to quarantine."""
        self.make_way(path)
        path.unlink(missing_ok=True)
