"""The commands for job files: validate, submit, schema."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import own_code
from pipeline.cli.arguments import (
    Files,
    Json,
    Overrides,
    hint_at_worker,
    make_home,
    message,
    print_json,
    print_lines,
    queue_of,
)
from pipeline.cli.streams import drop_unwritten_output
from pipeline.errors import Problem, SpecError, UsageError
from pipeline.home import durable
from pipeline.home.paths import Home, find_data
from pipeline.jobfile import own_modules, reading
from pipeline.wording import plural

if TYPE_CHECKING:
    from pipeline.jobfile.origins import Origins
    from pipeline.jobfile.spec import Spec
    from pipeline.queue.job_queue import Queue
    from pipeline.queue.tickets import Ticket
    from pipeline.queue.views import JobView


def validate(context: typer.Context, files: Files, overrides: Overrides = None) -> None:
    """Check job files, and the modules of your own that they name, and print every problem, by line."""
    specs = load_all(files, overrides or [], context.obj, rehearse=own_code.rehearse)
    for path, spec in zip(files, specs, strict=True):
        typer.echo(f"{path}: ok")
        if spec.search is not None:
            message(f"{path}: a sweep of {plural(spec.search.num_trials, 'job')}")


def submit(
    context: typer.Context,
    files: Files,
    overrides: Overrides = None,
    priority: Annotated[int | None, typer.Option(help="Higher runs first; overrides resources.priority.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit code tells it.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the ids and nothing else.")] = False,
    sets: Annotated[str, typer.Option("--sets", hidden=True, help="Several overrides in one text, for make.")] = "",
) -> None:
    """Put jobs into the queue and print their ids. Nothing is submitted if one of the files is wrong."""
    changes = [*(overrides or []), *overrides_in(sets)]
    changes += [] if priority is None else [f"resources.priority={priority}"]
    queue = queue_of(context)
    found = read_all(files, changes, context.obj)
    from pipeline.queue.submitting import numbered  # once it is known that the files are right

    warn_of_missing_folders([spec for spec, _ in found], queue.home)
    make_home(queue, quiet=quiet)
    tickets = numbered(queue.home, [ticket_of(spec, origins) for spec, origins in found])
    require_others(queue, tickets, [origins for _, origins in found])
    ids = queue.submit_all(tickets)
    # whatever fails from here on is no failure: a script would submit again for it
    with told_in_any_case(ids):
        if as_json and not wait:
            print_json([look_at(queue, job_id).to_json() for job_id in ids])
        elif not as_json:
            print_lines(ids)
    if not quiet:
        for job_id, (spec, _) in zip(ids, found, strict=True):
            if spec.search is not None:
                message(f"{job_id}: a sweep of {plural(spec.search.num_trials, 'job')}; `status` has them below it")
        with contextlib.suppress(OSError):
            hint_at_worker(queue)
    if wait:
        from pipeline.queue.views import EXIT_CODES

        ends = wait_for(queue, ids)
        if as_json:
            with told_in_any_case(ids):
                print_json([end.to_json() for end in ends])
        raise typer.Exit(max(EXIT_CODES[str(end.outcome)] for end in ends))


def overrides_in(text: str) -> list[str]:
    """Splits the SET of `make submit`, several overrides in one text, as a shell splits words.

    Raises UsageError where a quote is not closed, and where a word is no override, as after a blank without quotes.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"SET: {str(error).lower()}: {text}") from None
    for word in words:
        if "=" not in word:
            hint = "put a value with blanks in quotes, as in SET=\"description='two words'\""
            raise UsageError(f"SET: '{word}' is not key=value; {hint}")
    return words


def schema(
    context: typer.Context,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page instead, for people.")] = False,
) -> None:
    """Print the JSON Schema of job files, for editors; the modules of your own are in it."""
    from pipeline.jobfile import json_schema, reference

    with own_modules.using(own_modules.Modules.in_folder(context.obj.modules)):
        if markdown:
            typer.echo(reference.markdown(), nl=False)
        else:
            print_json(json_schema.json_schema())


def load_all(
    files: Sequence[Path],
    overrides: Sequence[str],
    home: Home,
    *,
    rehearse: Callable[[Spec, Origins], list[Problem]] = lambda spec, origins: [],  # noqa: ARG005
) -> list[Spec]:
    """All specs. Raises SpecError with the problems of all files. rehearse: gives those with code of the user's own."""
    return [spec for spec, _ in read_all(files, overrides, home, rehearse=rehearse)]


def ticket_of(spec: Spec, origins: Origins) -> Ticket:
    from pipeline.queue.tickets import Ticket

    return Ticket.new(spec) if spec.search is None else Ticket.of_sweep(spec, origins.written, origins.files)


def read_all(
    files: Sequence[Path],
    overrides: Sequence[str],
    home: Home,
    *,
    rehearse: Callable[[Spec, Origins], list[Problem]] = lambda spec, origins: [],  # noqa: ARG005
) -> list[tuple[Spec, Origins]]:
    """As `load_all`, and where each field was given."""
    found, problems = list[tuple["Spec", "Origins"]](), list[Problem]()
    for path in files:
        try:
            modules = own_code.modules_for(path, home)
            spec, origins = reading.load_with_origins(path, overrides, modules=modules)
            problems += rehearse(spec, origins)
            found.append((spec, origins))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))  # an override may be wrong in each file
    return found


def require_others(queue: Queue, tickets: Sequence[Ticket], origins: Sequence[Origins]) -> None:
    """Raises SpecError, with the lines, where a job is to run after one that is not there, or has not succeeded."""
    from pipeline.queue import dependencies

    if not any(ticket.after for ticket in tickets):
        return
    problems = list[Problem]()
    new = [ticket.id for ticket in tickets]
    known = [*queue.tickets.states(), *new]
    others = dependencies.Dependencies(queue.records, new)
    for ticket, found in zip(tickets, origins, strict=True):
        try:
            why = others.why_never(dependencies.ids_of(ticket, queue.tickets, known))
        except UsageError as error:
            why = str(error)
        if why:
            problems.append(Problem(*found.find(("after",)), "after", why))
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))


def warn_of_missing_folders(specs: Sequence[Spec], home: Home) -> None:
    for spec in specs:
        path = spec.data.options().get("path")
        if path is not None and (why := why_missing(path, home)):
            message(f"warning: {spec.name}: {why}")


def why_missing(path: str, home: Home) -> str:
    """Says what a dataset's folder lacks; nothing where it is there."""
    try:
        folder = find_data(home.datasets, Path(path).expanduser())
        return "" if folder.is_dir() else f"there is no folder {folder} (yet)"
    except (OSError, RuntimeError) as error:  # a name that is too long; ~somebody whom nobody knows
        return f"data.path: {path}: {error}"


@contextlib.contextmanager
def told_in_any_case(ids: Sequence[str]) -> Iterator[None]:
    """Tells the ids on stderr where stdout does not take them."""
    try:
        yield
    except OSError as error:
        drop_unwritten_output()
        message(f"stdout does not take it ({error.strerror}), but this is in the queue: {' '.join(ids)}")


def look_at(queue: Queue, job_id: str) -> JobView:
    """A job that is in the queue, whatever the disk can tell of it now."""
    from pipeline.queue import views

    try:
        return views.find(queue, job_id)
    except (OSError, UsageError) as error:
        return views.unreadable(queue, job_id, "pending", f"it cannot be looked at now: {error}")


def wait_for(queue: Queue, ids: Sequence[str]) -> list[JobView]:
    """The ends of all the jobs, each told as it is reached."""
    ends = []
    for job_id in ids:
        ends.append(end_of(queue, job_id))
        message(f"{job_id}: {ends[-1].outcome}: {ends[-1].why}")
    return ends


def end_of(queue: Queue, job_id: str) -> JobView:
    """How a job has ended, once it has. What the disk refuses meanwhile is said once, and tried again."""
    from pipeline.queue import views

    is_said = False
    while True:
        try:
            for view in views.changes(queue, job_id):
                end = view
        except OSError as error:
            if not is_said:
                message(f"{job_id}: cannot be looked at now, and is waited for: {durable.in_words(error)}")
            is_said = True
            time.sleep(views.POLL_S)
        else:
            return end
