"""The console command in a process of a case's own: how it leaves, what it says, and what it has touched.

The process is forked from one that has imported everything, and runs `pipeline.cli.main` on real streams, as the
console script does. Python's audit events tell what it opens, lists, changes and starts.

    here/     below the case's folder: where it is started
    scratch/  its HOME and TMPDIR, where libraries leave what they like
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attack import apart

HANGS_S = 60.0
MEMORY_BYTES = 3 * 1024**3  # of addresses; PyTorch's threads take most of them
LISTS = ("os.listdir", "os.scandir")
CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "os.utime",
)
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Touched:
    """What was done to which path: `reads`, `changes` or `starts`."""

    how: str
    path: str

    def is_in(self, folder: Path) -> bool:
        return Path(self.path).is_relative_to(folder)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str
    touched: tuple[Touched, ...]

    def violations(self, *codes: int) -> list[str]:
        """What no command may do: leave with another code than these, show a traceback, or say nothing of a failure."""
        found = [] if self.code in codes else [f"it leaves with {self.code}: {(self.err or self.out)[-200:]!a}"]
        if "Traceback" in self.err:
            found.append(f"it shows a traceback: {self.err[-300:]!a}")
        if self.code and not (self.err + self.out).strip():
            found.append("it fails and does not say why")
        return found


def clear(folder: Path) -> None:
    """Begin with nothing in `here/`."""
    shutil.rmtree(folder / "here", ignore_errors=True)
    (folder / "here").mkdir()
    (folder / "scratch").mkdir(exist_ok=True)


def run(words: Sequence[str], folder: Path, *, path: str = os.defpath) -> tuple[Answer | None, list[str]]:
    """The command's answer, started in `here/`; and what was violated where there is none.

    path: as `PATH`.
    """
    return apart.call(_run, list(words), folder, path, hangs_s=HANGS_S, memory_bytes=MEMORY_BYTES)


def shown(text: str) -> str:
    """Text as a stream shows it that cannot show all."""
    return text.encode("utf-8", "backslashreplace").decode()


def _run(words: list[str], folder: Path, path: str) -> Answer:
    os.chdir(folder / "here")
    scratch = str(folder / "scratch")
    os.environ.update({"PATH": path, "HOME": scratch, "TMPDIR": scratch})
    os.environ.pop("PIPELINE_HOME", None)
    os.environ["PIPELINE_BEGUN"] = str(os.getpid())  # `run` would begin anew, as another program
    out, err = folder / "stdout", folder / "stderr"
    for fd, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), fd)
    touched: list[Touched] = []
    sys.argv = ["pipeline", *words]
    watch(touched)
    code = _code_of_main()
    seen = (
        thing for thing in dict.fromkeys(touched) if not thing.is_in(folder / "scratch") and thing.path != os.devnull
    )
    return Answer(code, out.read_text(errors="replace"), err.read_text(errors="replace"), tuple(seen))


def _code_of_main() -> int:
    """As the interpreter makes it of what is raised."""
    from pipeline.cli.main import main

    try:
        main()
    except SystemExit as request:
        code = request.code if isinstance(request.code, int) else int(request.code is not None)
    except BaseException:  # noqa: BLE001 - so does the interpreter
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def watch(touched: list[Touched]) -> None:
    """Note what this process does from now on. There is no way to end that."""

    def note(how: str, path: Any) -> None:
        if isinstance(path, (str, bytes, os.PathLike)):  # else it is a descriptor
            touched.append(Touched(how, os.path.realpath(os.fsdecode(path))))

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            note("changes" if (arguments[2] or 0) & WRITES else "reads", arguments[0])
        elif event in LISTS:
            note("reads", arguments[0] or ".")
        elif event in CHANGES:
            note("changes", arguments[0])
            note("changes", arguments[1] if event in ("os.rename", "os.link", "os.symlink") else None)
        elif event in STARTS:
            touched.append(Touched("starts", str(arguments[0])))

    sys.addaudithook(on_event)
