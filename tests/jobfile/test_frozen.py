"""The frozen spec of a run: it reads back as it was, and is a job file itself."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from quick import quick_spec

from pipeline.home.paths import Home
from pipeline.jobfile import frozen, reading
from pipeline.queue.tickets import Ticket


def test_the_spec_that_is_kept_can_be_read_again_as_it_was(home: Home) -> None:
    spec = quick_spec(data={"augment": [{"name": "crop", "padding": 1}]})
    frozen.save(home.run("job"), spec)
    assert frozen.load(home.run("job")) == spec


def test_text_that_looks_like_a_number_is_still_text_in_the_kept_spec(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: '1e5'\ndescription: 'no'\nmodel: {name: cnn_bn}\ndata: {name: digits}\n")
    spec = reading.load(file)
    frozen.save(home.run("job"), spec)
    assert reading.load(home.run("job").spec) == spec


def test_a_depth_that_an_older_version_froze_beside_widths_is_left_out(home: Home) -> None:
    spec = quick_spec(model={"name": "vgg", "widths": [8, "M"]}, data={"image_size": 16})
    fields = spec.model_dump(mode="json")
    assert fields["model"]["depth"] is None
    fields["model"]["depth"] = 11
    home.run("old").root.mkdir(parents=True)
    home.run("old").spec.write_text(frozen.to_yaml(fields))
    assert frozen.load(home.run("old")) == spec
    ticket = dataclasses.replace(Ticket.new(spec), spec=fields)
    assert ticket.validated() == spec


BOMB = "\n".join(["a0: &a0 x", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])


@pytest.mark.parametrize("text", [BOMB, "description: " + "x" * 300_000, "[" * 100_000])
def test_a_kept_spec_that_stands_for_all_of_the_memory_is_refused(home: Home, text: str) -> None:
    frozen.save(home.run("job"), quick_spec())
    home.run("job").spec.write_text(text)
    with pytest.raises((ValueError, yaml.YAMLError, RecursionError)):
        frozen.load(home.run("job"))


def test_the_kept_spec_is_a_job_file_that_can_be_submitted(home: Home) -> None:
    frozen.save(home.run("job"), quick_spec(train={"optimizer": {"name": "adamw", "lr": 1e-5}}))
    command = [sys.executable, "-m", "pipeline.cli", "validate", str(home.run("job").spec)]
    assert subprocess.run(command, check=False).returncode == 0
