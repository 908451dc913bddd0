"""What the cells of `status --watch` say of a job."""

from __future__ import annotations

import re

from pipeline.folding import width
from pipeline.queue.views import JobView

BAR, PERCENT = 20, 6  # columns: a bar, and what stands behind it
TRIAL = "  "  # before the id of a trial, below its sweep
TRAINING = "training"  # why a job runs that has nothing else to say


def share(job: JobView) -> float | None:
    """How much of it is done, from 0 to 1; None where that is not known."""
    done, of = (job.epoch, job.epochs) if job.is_sweep else (job.step, job.steps)
    return min(1.0, max(0.0, done / of)) if of > 0 else None


def epoch(job: JobView) -> str:
    if not job.epochs:
        return ""
    return f"{job.epoch}/{job.epochs}{' trials' if job.is_sweep else ''}"


def numbers(told: str, room: int = 0) -> str:
    """The count alone, of trials too, where there is no room for the word."""
    return told if width(told) <= room else told.removesuffix(" trials")


def note(job: JobView) -> str:
    """What there is to say of a job that runs; of a sweep without its trials' count, which has a column."""
    said = "" if job.why in (TRAINING, f"{TRAINING}, {job.where}") else " ".join(job.why.split())
    return re.sub(r"^\d+ of [\d,]+ trials?\b *", "", said) if job.is_sweep else said


def gpu(job: JobView) -> str:
    """Its GPU; a sweep computes on nothing, and a cluster gives what it gives."""
    return job.gpu or ("" if job.is_sweep or job.where else "cpu")


def fits_in_bar(job: JobView) -> bool:
    """Whether what it is doing is told in place of its bar, for it has none yet."""
    return share(job) is None and width(note(job)) <= BAR + PERCENT


def indented(job: JobView) -> str:
    return f"{TRIAL}{job.id}" if job.trial is not None and job.state == "running" else job.id


def tail(name: str, room: int) -> str:
    """A worker's name where there is no room for it: its end, by which workers of one host differ."""
    return name if width(name) <= room else f"…{name[len(name) - room + 1 :]}"
