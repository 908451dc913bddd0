"""Every file name of a home, its queue and its runs, in one place.

HOME/queue/     the directory queue (job_queue.py)
HOME/runs/      one folder a job; TensorBoard's log directory; or the folder that PIPELINE_RUNS names
HOME/datasets/  what torchvision downloads, the user's image folders, and `.cache/` of decoded datasets; or the folder
                that PIPELINE_DATASETS names; of what is not there, the one that PIPELINE_DATA names is asked
HOME/modules/   Python files of the user's own; else the folder beside the home, or the one that PIPELINE_MODULES names
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.home.whereabouts import default_root

RUNS = "PIPELINE_RUNS"  # environment variable: where the runs are, in place of HOME/runs/
DATASETS = "PIPELINE_DATASETS"  # environment variable: where the datasets are, in place of HOME/datasets/
DATA = "PIPELINE_DATA"  # environment variable: a folder of datasets that may be read-only
MODULES = "PIPELINE_MODULES"  # environment variable: a folder of modules of the user's own
REMOVED = ".removed-"  # begins the names of runs that are being removed
NOTIFY = "PIPELINE_NOTIFY"  # environment variable: whom a worker tells, with passwords: for no process that it starts
STATES = ("pending", "running", "done", "failed", "cancelled")
"""The folders that a ticket can lie in; the folder is the job's state."""
MODULE = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*/){0,8}[A-Za-z_][A-Za-z0-9_]*\.py")
"""What a module of the user's own may be called, by its path in the folder."""
LOG = re.compile(r"attempt-([1-9][0-9]{0,4})\.log")  # nobody tries a job 100,000 times


def _named(variable: str) -> Path | None:
    """The folder that an environment variable names; None where it is not set, or empty."""
    return Path(found).absolute() if (found := os.environ.get(variable)) else None


def find_data(datasets: Path, path: Path) -> Path:
    """Where a dataset lies: in the home's folder, else in the one that PIPELINE_DATA names, if it is there."""
    own = datasets / path
    further = Path(os.environ.get(DATA) or datasets).absolute() / path
    return further if further.exists() and not _has_content(own) else own


def _has_content(path: Path) -> bool:
    """A download that failed leaves an empty folder."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


@dataclass(frozen=True)
class QueuePaths:
    root: Path

    @property
    def tmp(self) -> Path:
        """Files being written; each is complete and fsynced before it is linked or renamed out of here."""
        return self.root / "tmp"

    @property
    def quarantine(self) -> Path:
        """Tickets that could not be read, each beside a `.why` file."""
        return self.root / "quarantine"

    @property
    def sequence(self) -> Path:
        """The number of the latest job."""
        return self.root / "sequence"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    def folders(self) -> list[Path]:
        return [self.tmp, *(self.state(s) for s in STATES), self.quarantine, self.leases, self.control, self.jobs]

    def state(self, state: str) -> Path:
        return self.root / state

    def ticket(self, state: str, job_id: str) -> Path:
        return self.root / state / f"{job_id}.json"

    def ticket_text(self, state: str, job_id: str) -> str:
        """The same as text: to make a Path takes as long as to open the file, and `status` opens 100,000."""
        return f"{self.root}/{state}/{job_id}.json"

    def lease(self, job_id: str) -> Path:
        """Locked by whoever has the right to move this job's ticket out of `running/`: its worker and child."""
        return self.leases / job_id

    def worker_lease(self, worker: str) -> Path:
        """Locked for as long as the worker lives. The dot keeps it apart from every job id.

        Its time changes as long as the worker's loop goes round.
        """
        return self.leases / f".worker-{worker}"

    def gpu_lease(self, gpu: str, level: int) -> Path:
        """Locked by a job that computes on the GPU, and by its worker; a second job there has level 1."""
        return self.leases / f".gpu-{gpu}.{level}"

    def board_lease(self, name: str) -> Path:
        """Locked for as long as a TensorBoard of the home answers at the address that is in it."""
        return self.leases / f".tensorboard-{name}"

    def stop_request(self, worker: str) -> Path:
        """Asks a worker to leave; removed by it when it and all that it has started are gone."""
        return self.control / f".worker-{worker}.stop"

    def cancel_request(self, job_id: str) -> Path:
        return self.control / f"{job_id}.cancel"

    @property
    def pause(self) -> Path:
        """There while no job is to be started. The dot keeps it apart from every job id."""
        return self.control / ".pause"

    def wait(self, job_id: str) -> Path:
        """Until when a job that is tried again stays in `pending/`."""
        return self.control / f"{job_id}.wait"

    def job(self, job_id: str) -> Path:
        """The job's records."""
        return self.jobs / job_id

    def attempts(self, job_id: str) -> Path:
        """How often the job was tried and how each attempt ended."""
        return self.jobs / job_id / "attempts.json"

    def end(self, job_id: str) -> Path:
        """The job's one recorded end."""
        return self.jobs / job_id / "result.json"

    def end_text(self, job_id: str) -> str:
        """The same as text."""
        return f"{self.root}/jobs/{job_id}/result.json"


@dataclass(frozen=True)
class RunPaths:
    """What a job leaves: `runs/<job id>/`."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec.yaml"

    @property
    def manifest(self) -> Path:
        """Provenance, one entry an attempt."""
        return self.root / "manifest.json"

    @property
    def result(self) -> Path:
        """How the latest attempt ended."""
        return self.root / "result.json"

    @property
    def progress(self) -> Path:
        """Where the running attempt is; replaced every second or so."""
        return self.root / "progress.json"

    @property
    def order(self) -> Path:
        """Which attempt is to run, and whether it is to stop: the worker's word, wherever the attempt runs."""
        return self.root / "order.json"

    def claim(self, attempt: int) -> Path:
        """Made by the process that is an attempt in a cluster, so that no second one is."""
        return self.root / f".attempt-{attempt}.claim"

    @property
    def epochs(self) -> Path:
        """The figures of each epoch, a line an epoch; see `epoch_record.py`."""
        return self.root / "epochs.jsonl"

    @property
    def evaluation(self) -> Path:
        """What the latest evaluation found: confusion and the worst mistakes."""
        return self.root / "evaluation.json"

    @property
    def report(self) -> Path:
        """One page for people, whole in itself."""
        return self.root / "report.html"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before `last`, from which the job goes on where `last` is damaged."""
        return self.checkpoints / "previous.pt"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.pt"

    @property
    def modules(self) -> Path:
        """The user's own Python files that the job needs, as they were when it was submitted."""
        return self.root / "modules"

    @property
    def trials(self) -> Path:
        """Of a sweep: its trials, and the job of each."""
        return self.root / "trials.json"

    @property
    def study(self) -> Path:
        """Of a sweep: Optuna's own storage."""
        return self.root / "optuna.journal"

    def events(self) -> list[Path]:
        """TensorBoard's event files, one an attempt, in no order that counts."""
        return sorted(self.root.glob("events.out.tfevents.*"))

    def log(self, attempt: int) -> Path:
        return self.root / f"attempt-{attempt}.log"

    def log_numbers(self) -> list[int]:
        """The numbers of the attempts that have a log, ascending. Raises OSError where the folder cannot be listed."""
        try:
            names = os.listdir(self.root)  # noqa: PTH208 - glob takes a folder that cannot be listed for an empty one
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(match[1]) for name in names if (match := LOG.fullmatch(name)))

    def logs(self) -> list[Path]:
        """The logs of all attempts so far, first attempt first. Raises OSError where the folder cannot be listed."""
        return [self.log(number) for number in self.log_numbers()]


@dataclass(frozen=True)
class Home:
    root: Path

    @classmethod
    def find(cls, given: Path | None = None) -> Home:
        """The home given, else `PIPELINE_HOME`, else that of the checkout, else `./var`; see `whereabouts.py`."""
        named = given or os.environ.get("PIPELINE_HOME")
        return cls(Path(named).absolute() if named else default_root())

    @property
    def queue(self) -> QueuePaths:
        return QueuePaths(self.root / "queue")

    @property
    def settings(self) -> Path:
        """What jobs ask a cluster for where their files leave it open."""
        return self.root / "settings.yaml"

    @functools.cached_property
    def runs(self) -> Path:
        """In the home, or elsewhere: nodes of a cluster do not see a home on a worker's own disk."""
        return _named(RUNS) or self.root / "runs"

    @property
    def datasets(self) -> Path:
        """In the home, or elsewhere, as for the runs."""
        return _named(DATASETS) or self.root / "datasets"

    @property
    def modules(self) -> Path:
        """Python files of the user's own: in the home, else beside it, as it is with `var/` in a checkout."""
        if named := _named(MODULES):
            return named
        own, beside = self.root / "modules", self.root.parent / "modules"
        return beside if beside.is_dir() and not own.is_dir() else own

    def run(self, job_id: str) -> RunPaths:
        return RunPaths(self.runs / job_id)

    def removed_run(self, job_id: str) -> Path:
        """A run that is being removed."""
        return self.runs / f"{REMOVED}{job_id}"

    def run_text(self, job_id: str) -> str:
        """The run's folder as text."""
        return f"{self._runs_text}/{job_id}"

    @functools.cached_property
    def _runs_text(self) -> str:
        return str(self.runs)
