"""A job's records as the holder of its lease reads them: what is damaged goes to quarantine, and the job goes on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import Attempts, End
from pipeline.queue.tickets import Tickets


@dataclass(frozen=True)
class JobRecords:
    home: Home
    tickets: Tickets

    def recorded_end(self, job_id: str) -> End | None:
        """Returns how the job ended; None where it has not."""
        path = self.home.queue.end(job_id)
        if durable.is_there(path.parent) and not path.parent.is_dir():
            self.tickets.quarantine(path.parent, "it is not a folder")
        was_there = durable.is_there(path)  # asked before it is read: one that comes meanwhile is not damaged
        end = End.read(path)
        if end is None and was_there:
            self.tickets.quarantine(path, "it is not a job's end; the job counts as not ended")
        return end

    def sound_attempts(self, job_id: str) -> Attempts:
        """Returns the attempts; where their record is damaged, as many as there are logs."""
        path = self.home.queue.attempts(job_id)
        if not durable.is_there(path):
            return Attempts()
        attempts = Attempts.read(path)
        if attempts is not None:
            return attempts
        self.tickets.quarantine(path, "it is not a record of attempts; they are counted by their logs")
        numbers = [int(log.stem.removeprefix("attempt-")) for log in self.home.run(job_id).logs()]
        unknown = {"outcome": "lost", "why": "not known: the record of attempts was damaged"}
        return Attempts([dict(unknown) for _ in range(max(numbers, default=0))])
