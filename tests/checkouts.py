"""A checkout as a user has it, with a stand-in for its environment, so that `make` installs nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FILES = ("Makefile", "compose.yaml", "pyproject.toml", "requirements.lock", "docker/install.sh")
NOTES = 'for word; do printf "%s\\0" "$word"; done >>"{log}"; printf "\\n\\0" >>"{log}"'  # the words of a call


@dataclass
class Checkout:
    folder: Path
    programs: Path
    """A folder that is the first of PATH."""
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> Checkout:
        """With the files that `make` reads, and the project's own job files."""
        for name in FILES:
            path = folder / "checkout" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((ROOT / name).read_bytes())
            path.chmod((ROOT / name).stat().st_mode)
        for name in ("jobs", "modules"):
            (folder / "checkout" / name).symlink_to(ROOT / name)
        (folder / "programs").mkdir()
        return cls(folder / "checkout", folder / "programs")

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    @property
    def log(self) -> Path:
        return self.folder / "calls"

    def has_program(self, path: Path, script: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def has_pipeline(self) -> None:
        """The program itself, as if `make` had installed it."""
        command = shlex.join([sys.executable, "-P", "-m", "pipeline.cli"])
        self.has_program(self.venv / "bin" / "pipeline", f'PYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"')
        self.is_installed()

    def is_installed(self) -> None:
        self.venv.mkdir(exist_ok=True)
        (self.venv / ".installed").touch()

    def notes(self, name: str, script: str = "") -> str:
        """A program's script that notes its name and the words that it is called with, and then does `script`."""
        return f'set -- {name} "$@"; {NOTES.format(log=self.log)}; shift; {script or ":"}'

    def calls(self) -> list[list[str]]:
        """What stand-ins were called with, each with its name first."""
        if not self.log.exists():
            return []
        return [call.split("\0")[:-1] for call in self.log.read_text().split("\n\0")[:-1]]

    def run(self, *arguments: str, folder: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """`make` in the checkout, or in another folder; `more` is of the environment."""
        command = ["make", "--no-print-directory", *arguments]
        return subprocess.run(command, **self.options(**more), cwd=folder or self.folder)

    def options(self, **more: str) -> dict[str, Any]:
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        ours = ("PIPELINE_", "TENSORBOARD_", "COMPOSE_", "MAKE", "MFLAGS", "MODE", "GPU", "TORCH")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        env = {**clean, "PATH": path, **self.env, **more}
        return {"env": env, "capture_output": True, "text": True, "timeout": 120, "check": False}


def options_of(words: Sequence[str], *, after: str) -> list[str]:
    """The words of a call that follow one of them."""
    return list(words[list(words).index(after) + 1 :])
