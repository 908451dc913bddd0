"""The commands that start and stop what serves a home: worker, up, down, health."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pipeline.cli.arguments import Address, On, make_home, message, queue_of
from pipeline.cli.display import TerminalDisplay
from pipeline.home import board_addresses
from pipeline.home.paths import Home
from pipeline.queue import live_workers

if TYPE_CHECKING:
    from pipeline.worker.executors.engine import Engine

Port = Annotated[int, typer.Option(min=1, max=65535, help="TensorBoard's port.")]
Drain = Annotated[bool, typer.Option("--drain", help="Leave when nothing waits; 1 if a job did not succeed.")]
MOST_SLOTS = 64  # of this machine; in a cluster they are jobs that wait, too
Slots = Annotated[int, typer.Option(min=1, max=1000, help="Jobs that run, or wait in a cluster, at the same time.")]


def worker(
    context: typer.Context,
    drain: Drain = False,
    slots: Slots = 1,
    on: On = None,
    address: Address = "auto",
) -> None:
    """Work through the queue. Ctrl-C saves running jobs and queues them again; a second one does not wait for that.

    Jobs that were handed to a cluster go on without it, and the next worker takes them up.
    """
    queue = queue_of(context)
    engine = engine_of(on, address, slots=slots)
    make_home(queue)
    work(queue.home, drain=drain, slots=slots, engine=engine)


def engine_of(on: str | None, address: str, *, slots: int) -> Engine | None:
    """The engine that jobs are handed to. Raises UsageError, and BadParameter for too many slots of this machine."""
    from pipeline.worker.executors import engines

    if on is None and slots > MOST_SLOTS:
        raise typer.BadParameter(f"at most {MOST_SLOTS} on this machine", param_hint="--slots")
    return engines.make(on, address)


def up(
    context: typer.Context,
    port: Port = 6006,
    host: Annotated[
        str, typer.Option(help="Address that TensorBoard listens at; it asks for no password.")
    ] = "127.0.0.1",
    drain: Drain = False,
    slots: Slots = 1,
    on: On = None,
    address: Address = "auto",
) -> None:
    """Run the worker and TensorBoard together; Ctrl-C stops both."""
    from pipeline.board.tensorboard_process import TensorBoard, check_is_free

    signal.signal(signal.SIGTERM, _leave)  # until the worker listens
    engine = engine_of(on, address, slots=slots)
    queue = queue_of(context)
    check_is_free(host, port)  # before anything is made or started
    make_home(queue)
    home = queue.home
    board = TensorBoard(home.runs, port=port, host=host)
    with contextlib.ExitStack() as serving:
        serving.callback(board.stop)
        board.wait_until_it_answers()
        with contextlib.suppress(OSError):  # a full disk: then `show` says how to start one
            serving.callback(board_addresses.hold(queue.paths, board.url).release)
        message(f"TensorBoard: {board.url} (its page reloads by itself once you switch that on in its settings)")
        work(home, drain=drain, slots=slots, engine=engine, on_tick=board.keep_alive, at_end=serving.close)


def _leave(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    sys.exit(0)


def down(context: typer.Context) -> None:
    """Stop all workers of the home, and TensorBoard where it came with one; their jobs go on with the next `up`."""
    queue = queue_of(context)
    names = live_workers.ask_to_leave(queue)
    message(f"waiting for {', '.join(names)}" if names else f"no worker is running in {queue.home.root}")
    live_workers.wait_until_gone(queue, names)


def health(context: typer.Context) -> None:
    """Check that a worker runs on this host, or in this container, and that its loop goes round."""
    typer.echo(f"{live_workers.check_health(queue_of(context))}: works")


def work(
    home: Home,
    *,
    drain: bool,
    slots: int,
    engine: Engine | None = None,
    on_tick: Callable[[], None] = lambda: None,
    at_end: Callable[[], None] = lambda: None,
) -> None:
    from pipeline.queue.job_queue import Queue
    from pipeline.queue.pausing import PauseNotice
    from pipeline.stop import Stop, listen
    from pipeline.worker.worker import Worker

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever ignores it, as some launchers do, never sees a child end
    display, stop = TerminalDisplay(), Stop()
    pauses = PauseNotice(Queue(home), display.say)

    def tick() -> None:
        pauses.tick()
        on_tick()

    worker = Worker(home, display, slots=slots, drain=drain, stop=stop, on_tick=tick, engine=engine)
    where, after = (f" on {engine.name}", "jobs go on there") if engine else ("", "its jobs go on later")
    message(f"worker: serves {home.root}{where}; Ctrl-C stops it, and {after}")
    try:
        with listen(stop, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, again=worker.leave_at_once):
            worker.run()
    finally:
        display.close()
        at_end()
        with contextlib.suppress(OSError):
            worker.queue.paths.stop_request(worker.presence.name).unlink()
    if drain and worker.num_unsuccessful:
        raise typer.Exit(1)
