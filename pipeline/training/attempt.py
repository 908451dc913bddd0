"""One attempt of one job, from its spec to its result: the process that an executor starts.

    python -m pipeline.training.attempt HOME ID ATTEMPT [--alive FD]

An attempt with `--alive` ends with its worker; one without goes on, as on a node of a cluster.

It leaves `result.json` in every case but its own violent death and a disk that has no room even for that. Asked to
stop, it writes a checkpoint first, from which the next attempt goes on. Exit codes: 0 succeeded, 75 no room on the
disk, 1 anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import CheckpointError, Interrupted, JobError, OwnCodeError
from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import Outcome, Result, now
from pipeline.home.temporaries import remove_temporaries
from pipeline.jobfile import frozen
from pipeline.jobfile.own_code import frame_in
from pipeline.process import append_line, drop_unwritten_output, leave_at_once, write_line
from pipeline.stop import NO_ROOM, WORKER_DIED, Stop, listen
from pipeline.training.orders import Orders
from pipeline.training.progress import ProgressWriter
from pipeline.training.reasons import as_text, disk_full_error, explain
from pipeline.wording import plural

if TYPE_CHECKING:
    from pipeline.training.engine import Engine

MISPLACED = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)  # a folder in the place of a file, or the other way round
Ending = tuple[Outcome, str]  # and why
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # clusters send the one or the other before they kill
OOM_SCORE = 500  # as if it took half of the memory more than it does


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.attempt")
    parser.add_argument("home", type=Path)
    parser.add_argument("id")
    parser.add_argument("attempt", type=int)
    parser.add_argument("--alive", type=int, help="read end of a pipe; its end of file says that the worker is dead")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a file name need not be text
    offer_to_be_killed_first()
    home, stop = Home(arguments.home), Stop()
    attempt = Attempt(home, arguments.id, arguments.attempt, stop, write_line)
    listening = listen(stop, *SIGNALS, alive_fd=arguments.alive, abandoned=leave_at_once, again=lambda: None)
    orders = Orders(attempt.run, arguments.attempt, attempt.give_way, is_alone=arguments.alive is None)
    with listening, orders.followed(stop):
        result = attempt.execute()
    drop_unwritten_output()
    gc.freeze()  # what torch has loaded need not be looked through once more for garbage, which takes a second
    if attempt.is_disk_full:
        return NO_ROOM
    return 0 if result.outcome == "succeeded" and attempt.is_recorded else 1


def offer_to_be_killed_first() -> None:
    """Have the kernel, where it runs out of memory, take this process and its children, and never their worker."""
    with contextlib.suppress(OSError, ValueError):  # another system than Linux, or one that does not allow it
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(OOM_SCORE, int(score.read_text()))))


def train_in_foreground(home: Home, job_id: str, number: int, stop: Stop, *, echo: Callable[[str], None]) -> Result:
    """Train a job in this process, until `stop` is asked. Its lease is held, and its spec is in its run's folder.

    Raises OSError where its log cannot be written.
    """
    log = home.run(job_id).log(number).open("ab", buffering=0)

    def write(line: str) -> None:
        append_line(log.fileno(), line)
        echo(line)

    with log:
        return Attempt(home, job_id, number, stop, write).execute()


class Attempt:
    def __init__(self, home: Home, id: str, number: int, stop: Stop, echo: Callable[[str], None]) -> None:
        """echo: takes each line of the log, and raises nothing."""
        self.home, self.id, self.number, self.stop, self.echo = home, id, number, stop, echo
        self.run = home.run(id)
        self.started_at = now()
        self.progress = ProgressWriter(self.run, number, self.log)
        self.is_recorded = False
        self.is_disk_full = False  # whether that has ended the attempt, or kept its result from being written

    def execute(self) -> Result:
        """Train, and record how that ended. Nothing that the job does escapes from here."""
        try:
            ending: Ending = ("succeeded", self.train())
        except Interrupted as request:
            if not self.stop.why:  # nobody has asked: the job's own code raises it
                return self.record(*self.ending_of(RuntimeError(f"Interrupted: {request}")))
            ending = ("lost" if str(request) == WORKER_DIED else "interrupted", f"{request}; {self.what_is_saved()}")
        except BaseException as error:  # noqa: BLE001 - the job's boundary: whatever it was, it is recorded
            if isinstance(error, KeyboardInterrupt) and self.stop.why:  # asked twice, in the foreground
                ending = ("interrupted", f"{self.stop.why} twice; {self.what_is_saved()}")
            else:
                ending = self.ending_of(error)
        return self.record(*ending)

    def ending_of(self, error: BaseException) -> Ending:
        """Returns how the attempt ends by an error; where nobody can have foreseen it, the log gets the traceback."""
        if isinstance(error, OwnCodeError):
            if error.__cause__ is not None:
                self.echo(as_text(error.__cause__))
            return "invalid", str(error)
        if full := disk_full_error(error):
            self.is_disk_full = True
            return "interrupted", explain(full)
        if isinstance(error, JobError):
            return "failed", str(error)
        if not self.run.spec.exists():
            return "lost", "its run folder was removed while it ran"
        if what := self.misplaced(error):
            return "failed", what
        self.echo(as_text(error))
        where = frame_in(error, frozen.modules(self.run))  # in code of the user's own
        return "failed", f"{where} {explain(error)}".lstrip()

    def misplaced(self, error: BaseException) -> str:
        """Says what to remove where a pipe, a folder or the like has a name that the attempt needs; else nothing."""
        if isinstance(error, durable.NotAPlainFileError) or (isinstance(error, OSError) and error.errno in MISPLACED):
            path = Path(error.filename2 or error.filename or "")
            if path.is_relative_to(self.run.root):
                return f"{path}: it is none of the job's: {error.strerror}; remove it"
        return ""

    def what_is_saved(self) -> str:
        from pipeline.training import checkpoint

        step = checkpoint.saved_step(self.run)
        return f"step {step} is saved" if step else "nothing is saved yet"

    def record(self, outcome: Outcome, why: str) -> Result:
        """Leave the result, in a new folder where the run's was removed; a full disk is said in its stead."""
        p = self.progress.latest
        result = Result(self.number, outcome, why, p.epoch, p.epochs, p.step, p.metrics, self.started_at, now())
        line = f"{outcome}: {why}"
        try:
            durable.make_folder(self.run.root)
            if not durable.is_there(self.run.log(self.number)):
                self.run.log(self.number).touch()  # there is always one, in a folder made again too
            result.write(self.run.result)
            self.is_recorded = True
        except OSError as error:
            if disk_full_error(error) is None:
                line += f"; this is not recorded: {self.misplaced(error) or durable.in_words(error)}"
            elif not self.is_disk_full:
                line += "; the disk is full, so this is not recorded"
                self.is_disk_full = True
        self.log(line)
        return result

    def train(self) -> str:
        """Load, build, go on from where the last attempt was, train to the end. Returns the `why` of a success."""
        spec = frozen.load(self.run)
        durable.ask_first()
        remove_temporaries(self.run)
        self.progress.note(f"loading {spec.data.name}")
        from pipeline.training import device

        if spec.train.deterministic:
            device.make_deterministic()
        setting_of_job = device.begin_to_choose(spec)  # a GPU is opened while the rest is loaded
        from pipeline.board.artist import Artist
        from pipeline.board.writer import Board, quiet_writer_thread
        from pipeline.training import captured_step, checkpoint, cpu_choice, final_test, manifest, rehearsal
        from pipeline.training.engine import Engine
        from pipeline.training.job_dataset import load_dataset
        from pipeline.training.logbook import Logbook
        from pipeline.training.loop import Loop
        from pipeline.training.pretrained import normalized
        from pipeline.training.saver import Saver
        from pipeline.training.starting_weights import begin

        dataset = load_dataset(spec, self.home.datasets, log=self.log, before_decoding=setting_of_job)
        setting = setting_of_job()
        rehearsal.require(spec, rehearsal.Images.of(dataset))
        dataset = normalized(dataset, spec)
        for note in dataset.notes:
            self.log(note)
        self.stop.check()
        state = checkpoint.resume(self.run, log=self.log)
        before = state if state is None or "precision" in state else manifest.latest_setting(self.run)
        datasets = self.home.datasets
        setting = cpu_choice.settle(setting, spec, dataset, datasets=datasets, stop=self.stop, before=before)
        engine = Engine(spec, dataset, setting)
        metrics, begun_with = {}, None
        if state is not None:
            metrics = self.take_up(engine, state)
        else:
            begun_with = begin(spec, engine.model, dataset, self.home, log=self.log)
        provenance = manifest.write(
            self.run, spec, dataset, setting, job_id=self.id, attempt=self.number, begun_with=begun_with
        )
        self.log(self.opening(engine, resumed=state is not None))
        self.progress.begin(engine.moment, metrics, num_steps=engine.num_steps)
        first_point = engine.first_point
        with contextlib.ExitStack() as stack:
            stack.enter_context(quiet_writer_thread())
            board = stack.enter_context(Board(self.run.root, first_step=first_point))
            logbook = Logbook(
                board,
                spec,
                dataset,
                setting,
                first_step=engine.step,
                num_steps=engine.num_steps,
                manifest=provenance,
                job_file=frozen.read_text(self.run),
                log=self.log,
                artist=stack.enter_context(Artist()) if setting.device.type == "cuda" else None,
            )
            stack.push(logbook.settle_at_end)  # where no checkpoint follows, as the training has diverged
            saver = stack.enter_context(Saver(self.run, before=logbook.settle))
            loop = Loop(
                engine,
                captured_step.choose(engine, log=self.log),
                logbook=logbook,
                listener=self.progress,
                save=saver.save,
                check_saved=saver.check,
                record_epoch=self.progress.record_epoch,
                stop=self.stop,
                metrics=metrics,
            )
            try:
                loop.train()
                saver.finish()
                if tested := final_test.judge_best(engine, self.run, self.stop, log=self.log):
                    loop.log(tested)
                self.log(logbook.costs(self.progress.elapsed_s))
            finally:
                self.progress.end(engine.moment, loop.metrics)
        return final_test.outcome(engine, loop.metrics)

    def take_up(self, engine: Engine, state: dict[str, Any]) -> dict[str, float]:
        """Sets the engine to where a checkpoint was saved. Returns the metrics of then. Raises CheckpointError."""
        from pipeline.training import checkpoint

        try:
            engine.load_state_dict(state, log=self.log)
            return checkpoint.metrics_of(state)
        except CheckpointError as error:
            raise CheckpointError(f"{self.run.last}: {error}; remove it and the job begins anew") from None

    def opening(self, engine: Engine, *, resumed: bool) -> str:
        """Says in a line what is about to be trained."""
        spec, dataset = engine.spec, engine.dataset
        computes = engine.setting.describe()
        size = plural(sum(parameter.numel() for parameter in engine.model.parameters()), "parameter")
        begin = f"resumed at step {engine.step} (epoch {engine.epoch + 1})" if resumed else "begins"
        return (
            f"attempt {self.number} {begin}: {spec.model.name} with {size} on {spec.data.name} "
            f"({' + '.join(f'{size:,}' for size in dataset.sizes.values())} images), "
            f"{computes['device']} ({computes['name']}), "
            f"{engine.setting.in_words}, {plural(engine.num_steps, 'step')} in {plural(spec.train.epochs, 'epoch')}"
        )

    def give_way(self) -> None:
        """End this process, as another attempt has its place, or none is wanted. Nothing is written but its own log."""
        self.log("another process has this attempt's place, or it was to stop before it began; nothing is saved")
        leave_at_once()

    def log(self, line: str) -> None:
        self.echo(f"{time.strftime('%H:%M:%S')}  {line}")


if __name__ == "__main__":
    sys.exit(main())
