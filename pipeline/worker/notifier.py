"""The process that tells somebody that a job has ended, by apprise, which takes half a second and 45 MB to load.

    python -m pipeline.worker.notifier < a Task as JSON

Each address has a thread of its own, so that none waits for another that hangs. What goes wrong is printed, a Trouble
as JSON a line, and makes the exit code 1. Addresses hold passwords: they come by standard input alone, and of what
apprise says of its failures, which may have any part of them, those parts are left out.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import apprise

NICENESS = 5
WORD = 6  # letters
PAUSES_S = (2.0, 5.0)  # between tries
NOT_INSTALLED = "apprise is not installed: pip install 'pipeline[notify]'"
SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
UNDELIVERED = re.compile(
    r"\berror=(429|503)\b|Failed to establish a new connection|Connection refused|NameResolutionError"
    r"|getaddrinfo|[Nn]ame resolution|Name or service not known|Network is unreachable|No route to host"
)
"""Of what apprise says: nobody has taken the notification, so that it may be sent again, and is not told twice."""


@dataclass(frozen=True)
class Message:
    """kind: as apprise calls it."""

    title: str
    body: str
    kind: str


@dataclass(frozen=True)
class Task:
    """message: None where the addresses are to be checked alone. limit_s: then it says which have not answered."""

    addresses: Sequence[str]
    message: Message | None
    limit_s: float


@dataclass(frozen=True)
class Trouble:
    """address: its index; None where it is one of them all."""

    address: int | None
    why: str


def split(text: str) -> list[str]:
    """The addresses in a text, parted by blanks, or by commas before whatever begins like an address."""
    parts = re.split(rf"\s+|,(?={SCHEME})", text)
    return [part.strip(",") for part in parts if part.strip(",")]


def name(address: str) -> str:
    """What may be said of an address: how it begins."""
    match = re.match(SCHEME, address)
    return f"{match[0].lower()}..." if match else "an address without ://"


def main() -> int:
    try:
        value = json.load(sys.stdin)
        message = value["message"] and Message(**value["message"])
        task = Task(value["addresses"], message, value["limit_s"])
    except ValueError:  # the worker was killed while it wrote
        return 1
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    signal.alarm(int(task.limit_s) + 5)  # for a worker that was killed and an import that hangs
    troubles = list(carry_out(task))
    for trouble in troubles:
        sys.stdout.write(f"{json.dumps(dataclasses.asdict(trouble))}\n")
    return 1 if troubles else 0


def carry_out(task: Task) -> Iterator[Trouble]:
    deadline = time.monotonic() + task.limit_s
    try:
        import apprise
    except ImportError:
        yield Trouble(None, NOT_INSTALLED)
        return
    _listen()
    sendings = [_Sending(address) for address in task.addresses]
    for index, sending in enumerate(sendings):
        if why := sending.load(apprise):
            yield Trouble(index, why)
    if task.message is None:
        return
    loaded = [(index, sending) for index, sending in enumerate(sendings) if sending.service is not None]
    for _, sending in loaded:
        threading.Thread(target=sending.run, args=(apprise, task.message, deadline), daemon=True).start()
    for index, sending in loaded:
        if not sending.is_over.wait(max(0.0, deadline - time.monotonic())):
            yield Trouble(index, f"has not answered within {task.limit_s:g} s")
        elif sending.why:
            yield Trouble(index, sending.why)


@dataclass
class _Sending:
    """One address, and what has become of it."""

    address: str
    service: Any = None
    why: str = ""
    is_over: threading.Event = field(default_factory=threading.Event)

    def load(self, library: Any) -> str:
        """Returns why apprise does not understand the address; empty where it does."""
        with _Said() as said:
            asset = library.AppriseAsset(app_id="Pipeline", app_desc="Pipeline")  # who it is from
            self.service = library.Apprise.instantiate(self.address, asset=asset)
        if self.service is not None:
            return ""
        return f"apprise does not understand it: {without(self.address, said.why() or 'it is no address')}"

    def run(self, library: Any, message: Message, deadline: float) -> None:
        try:
            self.why = self._send(library, message, deadline)
        except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever apprise does is told
            self.why = without(self.address, f"{type(error).__name__}: {error}")
        self.is_over.set()

    def _send(self, library: Any, message: Message, deadline: float) -> str:
        """Returns why it could not be sent. Tries again where nobody can have got it."""
        told: apprise.Apprise = library.Apprise()
        told.add(self.service)
        for pause_s in (*PAUSES_S, None):
            with _Said() as said:
                is_sent = told.notify(message.body, message.title, library.NotifyType(message.kind), body_format="text")
            if is_sent:
                return ""
            if pause_s is None or not said.is_undelivered() or time.monotonic() + pause_s > deadline:
                break
            time.sleep(pause_s)
        return without(self.address, said.why() or "apprise does not say why")


_listener: contextvars.ContextVar[_Said | None] = contextvars.ContextVar("listener", default=None)


class _Said:
    """What apprise logs of one address, while this is entered: all it tells of a failure but that there was one."""

    def __init__(self) -> None:
        self.records: list[tuple[int, str]] = []

    def __enter__(self) -> _Said:
        self._token = _listener.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _listener.reset(self._token)

    def why(self) -> str:
        """The last warning, and the error below it, which is logged apart; empty where there is nothing."""
        warnings = [text for level, text in self.records if level >= logging.WARNING]
        errors = [text for level, text in self.records if level == logging.DEBUG and "Exception" in text]
        found, cause = " ".join(warnings[-1:]).strip().rstrip("."), _cause(" ".join(errors[-1:]))
        return ": ".join(part for part in (found, "" if cause in found else cause) if part)

    def is_undelivered(self) -> bool:
        is_partly_sent = any(level == logging.INFO and text.startswith("Sent") for level, text in self.records)
        return not is_partly_sent and any(UNDELIVERED.search(text) for _, text in self.records)


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if (said := _listener.get()) is not None:
            said.records.append((record.levelno, record.getMessage()))


def _listen() -> None:
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(_Listener())


def _cause(text: str) -> str:
    """The error in a logged `Socket Exception: ...`, without what libraries wrap it in."""
    text = re.sub(r"^.*?Exception[^:]*: ", "", text, flags=re.DOTALL)
    text = re.sub(r"^.*\(Caused by (.*)\)$", r"\1", text, flags=re.DOTALL)
    text = re.sub(r"""^\w+\(["'](.*)["']\)$""", r"\1", text, flags=re.DOTALL)
    return re.sub(r"^\w+\(host=.*?\): ", "", text, flags=re.DOTALL).strip()


def without(address: str, text: str) -> str:
    """A text without any part of an address but its scheme, on one line."""
    text = re.sub(rf"({SCHEME}|url: )[^\s'\"]*", r"\1...", " ".join(text.split()))
    for part in sorted(_parts(address), key=len, reverse=True):
        if len(part) > WORD:
            text = re.sub(re.escape(part), "...", text, flags=re.IGNORECASE)
        elif len(part) > 2:  # a short one may well be part of a word
            text = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "...", text, flags=re.IGNORECASE)
    return text


def _parts(address: str) -> set[str]:
    """All that may be a secret: what stands between the signs of an address, as it is written and as it is meant."""
    rest = re.sub(f"^{SCHEME}", "", address)
    found = set[str]()
    with contextlib.suppress(ValueError):
        split = urllib.parse.urlsplit(f"//{rest}")
        found |= {split.username or "", split.password or ""}
    texts = {known for text in (rest, *found) for known in (text, urllib.parse.unquote(text))}
    return (
        {part for text in texts for part in re.split(r"[^\w.-]+", text)} | found | set(map(urllib.parse.unquote, found))
    )


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # threads that hang are not waited for
