"""cancel and retry say what they did."""

from __future__ import annotations

from cli_runs import JobFile, Pipeline, submitted


def test_cancel_and_retry_say_what_they_did(pipeline: Pipeline, job_file: JobFile) -> None:
    first, second = submitted(pipeline, job_file(), job_file())
    done = pipeline("cancel", first, second)
    assert (done.returncode, done.stdout) == (0, f"{first}: cancelled\n{second}: cancelled\n")
    again = pipeline("cancel", first)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"{first}: has ended already (cancelled)" in again.stderr
    assert pipeline("retry", first).stdout == f"{first}: queued again\n"
    assert pipeline("retry", first).returncode == 1


def test_a_refused_retry_does_not_keep_the_others_from_being_queued_again(
    pipeline: Pipeline, job_file: JobFile
) -> None:
    first, waiting, last = submitted(pipeline, job_file(), job_file(), job_file())
    pipeline("cancel", first, last)
    done = pipeline("retry", first, waiting, last)
    assert (done.returncode, done.stdout) == (1, f"{first}: queued again\n{last}: queued again\n")
    assert f"{waiting}: is pending; only a failed or cancelled job can be retried" in done.stderr
