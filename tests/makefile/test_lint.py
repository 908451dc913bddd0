"""`make lint`, which `make test` begins with: it looks at every file of its kinds, and fails with any of its tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from checkouts import ROOT, Checkout

TOOLS = ["ruff", "mypy", "shellcheck", "hadolint", "check-jsonschema"]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Whose tools note what they are called with, and fail where their words have what `fails` holds."""
    made = Checkout.make(tmp_path)
    for tool in [*TOOLS, "pytest"]:
        made.has_program(
            made.venv / "bin" / tool, made.notes(tool, 'case " $FAILS " in *" $(basename "$0") "*) exit 1; esac')
        )
    made.is_installed()
    return made


@pytest.mark.parametrize("target", ["lint", "test"])
@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_can_fail_it(checkout: Checkout, target: str, tool: str) -> None:
    assert checkout.run(target).returncode == 0
    assert {words[0] for words in checkout.calls()} == {*TOOLS, *(["pytest"] if target == "test" else [])}
    checkout.log.unlink()
    assert checkout.run(target, FAILS=tool).returncode != 0
    assert "pytest" not in {words[0] for words in checkout.calls()}


def test_every_shell_script_and_dockerfile_is_looked_at(checkout: Checkout) -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("git does not say which files there are")
    files = [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    scripts = [path for path in files if re.match(rb"#!.*\b(ba|da)?sh\b", path.read_bytes()[:40])]
    dockerfiles = [path for path in files if "Dockerfile" in path.name]
    assert len(scripts) >= 3
    for path in [*scripts, *dockerfiles]:
        copy = checkout.folder / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.touch()
    checkout.run("lint")
    for tool, paths in (("shellcheck", scripts), ("hadolint", dockerfiles)):
        (words,) = (words[1:] for words in checkout.calls() if words[0] == tool)
        assert sorted(words) == sorted(str(path.relative_to(ROOT)) for path in paths)


def test_job_files_are_held_against_their_schema_and_compose_files_against_composes(checkout: Checkout) -> None:
    checkout.run("lint")
    calls = [words[1:] for words in checkout.calls() if words[0] == "check-jsonschema"]
    assert calls[0] == ["--check-metaschema", "jobs/schema.json"]
    assert calls[1][:2] == ["--schemafile", "jobs/schema.json"]
    assert "jobs/digits.yaml" in calls[1]
    assert calls[2] == ["--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    assert calls[3][:2] == calls[2][:2]
