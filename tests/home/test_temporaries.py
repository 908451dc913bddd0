"""What a killed attempt was writing is removed by the next one; what others are writing stays."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.home.paths import RunPaths
from pipeline.home.temporaries import remove_temporaries

LEFT = (
    ".result.json.12.0f0f0f0f.tmp",
    ".progress.json.12.0f0f0f0f.tmp",
    ".projector_config.pbtxt.12.0f0f0f0f.tmp",
    "progress.tmp",
    "checkpoints/.last.pt.12.0f0f0f0f.tmp",
    "checkpoints/.last.pt.12.0f0f0f0f.best",
    "projector/.sprite.png.12.0f0f0f0f.tmp",
    "profile/.steps-11-15.pt.trace.json.gz.12.0f0f0f0f.tmp",
    "profile/.trace.json",
)
KEPT = (
    ".report.html.99.0f0f0f0f.tmp",
    "spec.yaml",
    "progress.json",
    "attempt-1.log",
    "checkpoints/last.pt",
    "projector/sprite.png",
    "profile/steps-11-15.pt.trace.json.gz",
)


def test_what_a_killed_attempt_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (*LEFT, *KEPT):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / ".folder.tmp").mkdir()
    os.mkfifo(tmp_path / "profile" / ".pipe")
    (tmp_path / "checkpoints" / ".link").symlink_to("nowhere")
    remove_temporaries(RunPaths(tmp_path))
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == set(KEPT)
    assert {path.name for path in tmp_path.rglob(".*")} == {".folder.tmp", ".report.html.99.0f0f0f0f.tmp"}
    assert (tmp_path / ".folder.tmp").is_dir()


def test_a_run_of_which_there_is_nothing_yet_has_no_temporaries(tmp_path: Path) -> None:
    remove_temporaries(RunPaths(tmp_path / "none"))
