"""Optuna's part of a sweep: asked, told, killed at any byte of its journal, and with values of every kind."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import folder, journal  # noqa: F401 - a fixture
from small_sweeps import written as job_file

from pipeline.home import durable
from pipeline.home.sweep_record import Trial
from pipeline.jobfile.search import Search
from pipeline.jobfile.spec import Spec
from pipeline.search.study import Study

LR, SEED, NAME = "train.optimizer.lr", "train.seed", "train.optimizer.name"
SPACE = {LR: {"from": 1e-4, "to": 1, "log": True}, NAME: ["sgd", "adamw"]}


def search_of(**fields: Any) -> Search:
    search = Spec.model_validate_json(json.dumps(job_file(**{"space": SPACE, "trials": 20, **fields}))).search
    assert search is not None
    return search


def open_study(
    folder: Path, recorded: Sequence[Trial] = (), *, epochs: int = 9, fractional: Sequence[str] = (), **search: Any
) -> Study:
    """As each process that takes the sweep up opens it, after what the record says."""
    path = folder / "optuna.journal"
    return Study(path, search_of(**search), epochs=epochs, seed=1, fractional=fractional, recorded=recorded)


def ask(study: Study, recorded: list[Trial], times: int = 1) -> list[dict[str, Any]]:
    """The values of the next trials, as they are recorded."""
    for number in range(len(recorded), len(recorded) + times):
        values = json.loads(json.dumps(study.ask(number)))
        recorded.append(Trial(number, f"job-{number}", values))
    return [trial.values for trial in recorded[-times:]]


def test_what_was_asked_stays_and_a_trial_is_told_once(folder: Path) -> None:
    recorded: list[Trial] = []
    study = open_study(folder)
    [first, second] = ask(study, recorded, 2)
    assert first != second
    assert [study.ask(0), study.ask(1)] == [first, second]
    assert study.num_trials == 2
    for again in (study, open_study(folder, recorded)):
        assert not again.report(0, {1: 0.5, 2: 0.6})
        again.tell(0, "succeeded", [0.6])
        again.tell(0, "failed", None)
        assert (again.is_told(0), again.is_told(1)) == (True, False)
        assert again.report(0, {3: 0.1}) is False
    made, ends = journal(folder / "optuna.journal")
    assert len(made) == 2
    assert [(line["trial_id"], line["state"], line["values"]) for line in ends] == [(0, 1, [0.6])]
    assert open_study(folder, recorded).study.best_value == 0.6


@pytest.mark.parametrize(
    ("outcome", "scores", "state"),
    [
        ("succeeded", [0.5], "COMPLETE"),
        ("succeeded", None, "FAIL"),
        ("pruned", None, "PRUNED"),
        ("pruned", [0.5], "PRUNED"),
        ("cancelled", [0.5], "FAIL"),
        ("lost", None, "FAIL"),
        ("timed_out", [0.5], "FAIL"),
        ("invalid", None, "FAIL"),
    ],
)
def test_how_a_job_ended_is_how_its_trial_did(
    folder: Path, outcome: str, scores: list[float] | None, state: str
) -> None:
    study = open_study(folder)
    study.ask(0)
    study.tell(0, outcome, scores)
    [trial] = study.study.trials
    assert trial.state.name == state
    assert trial.values == (scores if state == "COMPLETE" else None)


# The journal, killed and harmed


def begun(folder: Path, **search: Any) -> tuple[list[Trial], bytes]:
    """Two trials that were asked for, one of them told; and the journal."""
    recorded: list[Trial] = []
    study = open_study(folder, **search)
    ask(study, recorded, 3)
    study.report(0, {1: 0.3, 2: 0.4})
    study.tell(0, "succeeded", [0.4])
    return recorded, (folder / "optuna.journal").read_bytes()


def check_goes_on(folder: Path, recorded: list[Trial], **search: Any) -> None:
    """That its trials are the record's, that each can be told once, and that the next one is the next."""
    study = open_study(folder, recorded, **search)
    assert [study.ask(trial.number) for trial in recorded] == [trial.values for trial in recorded]
    for trial in recorded:
        study.tell(trial.number, "succeeded", [0.4])
    ask(study, recorded)
    again = open_study(folder, recorded, **search)
    assert again.num_trials == len(recorded)
    assert [again.is_told(trial.number) for trial in recorded] == [True] * (len(recorded) - 1) + [False]
    made, ends = journal(folder / "optuna.journal")
    assert len(made) == len(recorded)
    assert sorted(line["trial_id"] for line in ends) == list(range(len(recorded) - 1))


def test_a_journal_that_is_cut_at_any_byte_goes_on_with_the_recorded_trials(folder: Path) -> None:
    """A kill, or a full disk, amid a line or between two: at any byte of the last ones, and of what one trial makes."""
    recorded, content = begun(folder)
    lines = content.splitlines(keepends=True)
    assert b'"op_code":6' in lines[-1]
    ends = [len(b"".join(lines[:number])) for number in range(len(lines))]
    for length in [*ends, *range(ends[-2], len(content))]:
        (folder / "optuna.journal").write_bytes(content[:length])
        study = open_study(folder, recorded)
        assert [study.ask(trial.number) for trial in recorded] == [trial.values for trial in recorded], length
        assert study.num_trials == 3, length
    for length in (0, 1, len(content) // 3, len(content) // 2):
        (folder / "optuna.journal").write_bytes(content[:length])
        check_goes_on(folder, list(recorded))


def test_a_trial_that_was_asked_for_and_not_recorded_is_asked_for_again(folder: Path) -> None:
    """Cut after each line of it: what was chosen of its values stays, the others are chosen."""
    recorded, content = begun(folder)
    (unrecorded,) = recorded[2:]
    lines = content.splitlines(keepends=True)
    made = next(n for n, line in enumerate(lines) if b'"op_code":4' in line and n > 4 and len(lines) - n <= 8)
    for num_lines in range(made, len(lines) + 1):
        (folder / "optuna.journal").write_bytes(b"".join(lines[:num_lines]))
        study = open_study(folder, recorded[:2])
        values = study.ask(2)
        assert study.ask(2) == values
        assert study.num_trials == 3
        if num_lines == len(lines):
            assert values == unrecorded.values


HARM: dict[str, bytes] = {
    "empty": b"",
    "text": b"what is this?\n",
    "no text": bytes(range(256)) * 10 + b"\n",
    "no operations": b"[1]\n5\nnull\n",
    "unknown operation": b'{"op_code":99,"worker_id":"x"}\n',
    "nested": b"[" * 20_000 + b"\n",
}


@pytest.mark.parametrize("kind", [*HARM, "amid", "gone", "folder", "pipe", "dangling link"])
def test_a_journal_that_is_lost_or_harmed_is_made_anew_from_the_record(folder: Path, kind: str) -> None:
    recorded, content = begun(folder)
    path = folder / "optuna.journal"
    path.unlink()
    if kind in HARM:
        path.write_bytes(HARM[kind])
    elif kind == "amid":
        path.write_bytes(content[:200] + b"\xff\x00" + content[202:])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling link":
        path.symlink_to(folder / "nowhere")
    check_goes_on(folder, recorded)


@pytest.mark.parametrize(
    "other",
    [
        {"space": {LR: [0.1, 0.01, 0.5], NAME: ["sgd", "adamw"]}},
        {"space": {"data.batch_size": [32, 64]}},
        {"space": SPACE, "maximize": None, "minimize": "val/loss"},
        {"space": SPACE, "maximize": ["val/accuracy", "train/images_per_second"]},
        {"space": SPACE, "sampler": "tpe"},
    ],
)
def test_the_journal_of_another_sweep_is_put_aside(folder: Path, other: dict[str, Any]) -> None:
    recorded, _ = begun(folder)
    foreign = folder / "foreign"
    foreign.mkdir()
    study = open_study(foreign, **other)
    for number in range(5):
        study.ask(number)
        study.tell(number, "failed", None)
    content = (foreign / "optuna.journal").read_bytes()
    (folder / "optuna.journal").write_bytes(content)
    check_goes_on(folder, recorded)
    assert (folder / "optuna.journal.damaged").read_bytes().startswith(content)


def test_a_disk_that_refuses_the_journal_is_no_reason_to_make_it_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, content = begun(folder)

    def refuse(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "open_plain", refuse)
    with pytest.raises(OSError, match="Input/output"):
        open_study(folder, recorded)
    assert (folder / "optuna.journal").read_bytes() == content


# Which values


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_sweep_that_is_taken_up_before_each_trial_repeats_no_values(folder: Path, sampler: str) -> None:
    recorded: list[Trial] = []
    for _ in range(15):
        ask(open_study(folder, recorded, sampler=sampler), recorded)
    assert len({trial.values[LR] for trial in recorded}) == 15
    assert {trial.values[NAME] for trial in recorded} == {"sgd", "adamw"}


@pytest.mark.parametrize("apart", [False, True], ids=["one process", "a process a trial"])
def test_a_grid_gives_each_point_once(folder: Path, apart: bool) -> None:
    space = {LR: [0.1, 0.01], SEED: {"from": 0, "to": 2}, "data.batch_size": {"from": 32, "to": 96, "step": 32}}
    recorded: list[Trial] = []
    study = open_study(folder, sampler="grid", space=space, trials=None)
    for _ in range(18):
        ask(open_study(folder, recorded, sampler="grid", space=space, trials=None) if apart else study, recorded)
    points = {tuple(trial.values.values()) for trial in recorded}
    assert points == {(lr, seed, size) for lr in (0.1, 0.01) for seed in (0, 1, 2) for size in (32, 64, 96)}
    assert search_of(sampler="grid", space=space, trials=None).num_trials == 18


def test_a_part_of_a_grid_is_spread_over_it_and_each_point_comes_once(folder: Path) -> None:
    space = {SEED: {"from": 0, "to": 99}}
    recorded: list[Trial] = []
    for _ in range(10):
        ask(open_study(folder, recorded, sampler="grid", space=space, trials=10), recorded)
    seeds = [trial.values[SEED] for trial in recorded]
    assert len(set(seeds)) == 10
    assert max(seeds) > 50


ODD = [True, 1, 2.0, 0, False, "1", "true", None, [], [1], [True], {"name": "sgd"}, {"name": "sgd", "lr": 1}, "", 1e-9]


@pytest.mark.parametrize(
    "choices",
    [ODD, [1, True], [1, 2.0], [0.0, False], [None], [None, "null"], [[1, 2], [2, 1]], [3, 2.5], ["a", "b"], ["é\n"]],
    ids=repr,
)
@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_any_value_of_a_choice_comes_back_as_it_was_written(folder: Path, choices: list[Any], sampler: str) -> None:
    options: dict[str, Any] = {"sampler": sampler, "space": {"data.x": choices}, "trials": len(choices) * 3}
    study, recorded = open_study(folder, **options), []
    ask(study, recorded, len(choices) if sampler == "grid" else len(choices) * 3)
    found = [json.dumps(trial.values["data.x"]) for trial in recorded]
    assert set(found) <= set(map(json.dumps, choices))
    if sampler == "grid":
        assert found == [json.dumps(choice) for choice in choices]
    (folder / "optuna.journal").unlink()
    again = open_study(folder, recorded, **options)
    assert [json.dumps(again.ask(trial.number)["data.x"]) for trial in recorded] == found
    assert again.study.trials[-1].params == study.study.trials[-1].params


RANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "whole": ({"from": 1, "to": 10}, False),
    "whole, of fractions": ({"from": 0, "to": 1}, True),
    "whole, logarithmic": ({"from": 1, "to": 1024, "log": True}, False),
    "whole, in steps": ({"from": 32, "to": 500, "step": 32}, False),
    "whole, in steps, of fractions": ({"from": 0, "to": 4, "step": 2}, True),
    "fractions": ({"from": 0.0, "to": 1.0}, False),
    "thirds": ({"from": 0.1, "to": 1.0, "step": 0.3333333333}, False),
    "tenths": ({"from": 0.1, "to": 0.9, "step": 0.1}, False),
    "many steps": ({"from": 100.0, "to": 101.0, "step": 1 / 3000}, False),
    "millions": ({"from": 0.0, "to": 1e7, "step": 1.0}, False),
    "logarithmic": ({"from": 1.23456789e-5, "to": 1.23456789e-4, "log": True}, False),
    "narrow": ({"from": 0.123456781, "to": 0.123456789}, False),
    "negative": ({"from": -2.5, "to": -1}, False),
}


@pytest.mark.parametrize("kind", RANGES)
def test_a_range_gives_numbers_inside_it_on_its_steps_and_of_its_kind(folder: Path, kind: str) -> None:
    given, is_fractional = RANGES[kind]
    low, high, step = given["from"], given["to"], given.get("step")
    fractional = ["train.x"] if is_fractional else []
    options: dict[str, Any] = {"space": {"train.x": given}, "fractional": fractional, "sampler": "random"}
    study, recorded = open_study(folder, **options), []
    values = [value["train.x"] for value in ask(study, recorded, 25)]
    assert all(low <= value <= high for value in values)
    is_whole = all(isinstance(number, int) for number in (low, high, step or 1)) and not (is_fractional and not step)
    assert {type(value) for value in values} == {int if is_whole else float}
    if step:
        assert all(math.isclose((value - low) / step, round((value - low) / step), abs_tol=1e-5) for value in values)
        assert values == pytest.approx([trial.params["train.x"] for trial in study.study.trials], rel=1e-10)
    elif is_fractional:
        assert any(0 < value < 1 for value in values)
    assert [open_study(folder, recorded, **options).ask(trial.number)["train.x"] for trial in recorded] == values
    (folder / "optuna.journal").unlink()
    again = open_study(folder, recorded, **options)
    assert [again.ask(trial.number)["train.x"] for trial in recorded] == values
    assert not (folder / "optuna.journal.damaged").exists()
    open_study(folder, recorded, **options)
    assert not (folder / "optuna.journal.damaged").exists(), "what was made anew is taken for what it is"


def test_numbers_are_such_as_a_person_would_write(folder: Path) -> None:
    recorded: list[Trial] = []
    tenths = {"from": 0.1, "to": 0.9, "step": 0.1}
    ask(open_study(folder, sampler="grid", trials=None, space={LR: tenths}), recorded, 9)
    assert [trial.values[LR] for trial in recorded] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    (folder / "optuna.journal").unlink()
    assert len(f"{open_study(folder, sampler='random').ask(0)[LR]:.17g}".lstrip("0.")) <= 20


# Pruning, and the other samplers


def test_the_median_prunes_what_is_hopeless_and_not_what_is_good(folder: Path) -> None:
    study, recorded = open_study(folder, pruner="median", sampler="random"), []
    for number in range(5):
        ask(study, recorded)
        for epoch in range(1, 10):
            assert not study.report(number, {e: 0.1 * e for e in range(1, epoch + 1)}), "the first ones show the way"
        study.tell(number, "succeeded", [0.9])
    ask(study, recorded, 3)
    assert [study.report(6, {epoch: 0.11 * epoch for epoch in range(1, n)}) for n in range(2, 10)] == [False] * 8
    verdicts = [study.report(5, {epoch: 0.01 * epoch for epoch in range(1, n)}) for n in range(2, 11)]
    assert verdicts[-1]
    assert not verdicts[0], "it is given a chance to begin with"
    again = open_study(folder, recorded, pruner="median", sampler="random")
    assert again.report(5, {9: 0.09})
    again.tell(5, "pruned", None)
    assert again.study.trials[5].value == pytest.approx(0.09)


def test_what_is_to_be_low_is_pruned_where_it_is_high(folder: Path) -> None:
    study = open_study(folder, pruner="median", sampler="random", maximize=None, minimize="val/loss")
    for number in range(5):
        study.ask(number)
        study.report(number, {epoch: 1 / epoch for epoch in range(1, 10)})
        study.tell(number, "succeeded", [1 / 9])
    study.ask(5), study.ask(6)
    assert study.report(5, dict.fromkeys(range(1, 9), 5.0))
    assert not study.report(6, dict.fromkeys(range(1, 9), 0.05))


@pytest.mark.parametrize("epochs", [1, 2, 9, 30])
def test_hyperband_prunes_some_and_never_the_best(folder: Path, epochs: int) -> None:
    """Process by process; a trial's last epoch counts too, though there is nothing left to be saved by then."""
    recorded: list[Trial] = []
    pruned = []
    for number in range(12):
        study = open_study(folder, recorded, pruner="hyperband", sampler="tpe", epochs=epochs)
        ask(study, recorded)
        quality = 1.0 if number == 6 else 0.5 - 0.01 * number
        for epoch in range(1, epochs + 1):
            if study.report(number, {epoch: quality * epoch}):
                pruned.append(number)
                study.tell(number, "pruned", None)
                break
        else:
            study.tell(number, "succeeded", [quality * epochs])
    assert 6 not in pruned
    assert pruned or epochs < 9
    assert open_study(folder, recorded, pruner="hyperband", sampler="tpe", epochs=epochs).study.best_trial.number == 6


def test_cmaes_goes_on_across_processes_and_comes_close(folder: Path) -> None:
    space = {LR: {"from": 0.0, "to": 1.0}, "train.x": {"from": 0.0, "to": 1.0}}
    recorded: list[Trial] = []
    study = open_study(folder, sampler="cmaes", space=space, trials=40)
    for number in range(40):
        if number % 8 == 0:
            study = open_study(folder, recorded, sampler="cmaes", space=space, trials=40)
        [values] = ask(study, recorded)
        study.tell(number, "succeeded", [-((values[LR] - 0.3) ** 2) - (values["train.x"] - 0.7) ** 2])
    assert len({tuple(trial.values.values()) for trial in recorded}) == 40
    assert study.study.best_value > -0.02


def test_several_objectives_make_a_front(folder: Path) -> None:
    options: dict[str, Any] = {"maximize": "val/accuracy", "minimize": ["val/loss"], "sampler": "tpe"}
    recorded: list[Trial] = []
    for number, (accuracy, loss) in enumerate([(0.9, 1.0), (0.8, 0.5), (0.7, 0.7), (0.9, 0.9)]):
        study = open_study(folder, recorded, **options)
        ask(study, recorded)
        study.tell(number, "succeeded", [accuracy, loss])
    assert sorted(trial.number for trial in study.study.best_trials) == [1, 3]
