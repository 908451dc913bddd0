"""A home amid decoys and things of every kind, and the ids and paths that lead to them: what nobody means to type.

homes/target/   the home, a copy for each case
outside/        a whole run, which some steps up from the home's folders lead to
pending/ ...    tickets, likewise
things/         what is no job file, no image, and nothing that can be written
"""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from job_texts import JOBS

from attack.trained import Trained
from pipeline.home.paths import STATES, Home

FOREIGN_ID = "foreign-20260101T000000000000Z-0000ff"
WITNESS = "witness-of-the-shell"  # a name that no file may have afterwards
THINGS = ("nowhere", "loop", "folder", "text", "noise", "huge", "link", "socket", "text/x", "not-there/x")


@dataclass(frozen=True)
class Surroundings:
    folder: Path
    trained: Trained

    @classmethod
    def make(cls, folder: Path) -> Surroundings:
        made = cls(folder, Trained.make(folder / "homes"))
        source, job_id = made.trained.source, made.trained.job_id
        shutil.copytree(source.run(job_id).root, made.decoy)
        ticket = source.queue.ticket("done", job_id).read_text().replace(job_id, FOREIGN_ID)
        for state in STATES:
            (folder / state).mkdir()
            (folder / state / f"{FOREIGN_ID}.json").write_text(ticket)
        put_things(made.things)
        return made

    @property
    def decoy(self) -> Path:
        return self.folder / "outside"

    @property
    def things(self) -> Path:
        return self.folder / "things"

    @property
    def home(self) -> Home:
        return self.trained.target

    def is_decoy(self, path: Path) -> bool:
        return any(path.is_relative_to(self.folder / name) for name in (*STATES, self.decoy.name))

    def ids(self) -> Iterator[str]:
        """None is the beginning of one id alone."""
        real, run = self.trained.job_id, self.home.run(self.trained.job_id).root
        up = [os.path.relpath(self.decoy, below) for below in (self.home.runs, self.home.queue.state("done"), run)]
        yield from (*up, *(f"{path}/" for path in up), str(self.decoy), f"../{real}", str(run), str(run.parent))
        yield from (f"../../../{state}/{FOREIGN_ID}" for state in STATES)
        yield from (FOREIGN_ID, f"{real}/", f"./{real}", f"{real}/../{real}", f"{real}/spec.yaml", f"runs/{real}")
        yield from ("", " ", ".", "..", "../..", "/", "//", "/etc/passwd", "*", "?*", "[a-z]*", f"{real[:9]}*", "{a,b}")
        yield from ("~", "~root", "$HOME", f"$(touch {WITNESS})", f"`touch {WITNESS}`", f"; touch {WITNESS}", "| cat")
        yield from ("\n", f"{real}\n", f"\n{real}", f"{real}\n{real}", "\t", "\0", f"{real}\0", "\x1b[2J", "\x7f", "\\")
        yield from ("\udcff", f"{real}\udcff", "é", "💥", "\u202e", "x" * 255, "x" * 5000, "x" * 100_000, "../" * 2000)
        yield from ("-", "---", "-x", "-rf", "--no-such-option", "--home", "-1", "=", "%s%n", "{0}", "null", "None")
        yield from (real.upper(), f"{real}x", "LATEST", "latest ", "latest/", "latest/..", ".worker-x", "result.json")

    def paths(self) -> Iterator[str]:
        """None is a job file or an image, or can be written as a file with a name that commands take."""
        yield from (str(self.things / name) for name in THINGS)
        yield from (str(self.home.root), "", ".", "..", "/", "//", "../" * 1500, "/dev/null", "/dev/zero", "/dev/full")
        yield from ("/proc/1/mem", "~", "~nobody-here/x", "$HOME", "*", "x" * 255, "x" * 5000, "x/" * 1500, " ", "-")
        yield from ("\n", "a\nb", "\udcff", "💥", "%s%n", f"$(touch {WITNESS})", "file:///etc/passwd", "-x")
        yield from ("http://127.0.0.1:9/x", "--no-such-option", "\x1b[2J", "é" * 200)

    def homes(self) -> Iterator[str]:
        """Where a home can be made, and where none can; none where one is not to be."""
        yield from (str(self.things / name) for name in THINGS)
        yield from ("", "new", "new/new", "./new/../new", "/dev/null", "/proc/1/mem", "~", "$HOME", "*", "x" * 255)
        yield from ("x" * 256, "x" * 5000, "x/" * 100, "x/" * 3000, " ", "\n", "a\nb", "\udcff", "💥", "%s%n", "-x")
        yield from (f"$(touch {WITNESS})", "status", "\x1b[2J", str(self.home.runs), str(self.home.queue.tmp))


def put_things(folder: Path) -> None:
    folder.mkdir()
    (folder / "nowhere").symlink_to("not-there/either")
    (folder / "loop").symlink_to("loop")
    (folder / "folder").mkdir()
    (folder / "text").write_text("no job file, no image")
    (folder / "noise").write_bytes(random.Random(0).randbytes(5000))
    with (folder / "huge").open("wb") as file:
        file.truncate(2**40)
    (folder / "link").symlink_to("text")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    shutil.copy(JOBS / "digits.yaml", folder / "job.yaml")
