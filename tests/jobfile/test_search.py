"""The `search` section: what makes a sweep, each value tried as `--set` would try it, and what is said of mistakes."""

from __future__ import annotations

from typing import Any

import pytest
from job_texts import errors, read

from pipeline.board import tags
from pipeline.errors import SpecError
from pipeline.jobfile.search import METRICS, MOST, Range, Search, Space
from pipeline.jobfile.sweep import may_be_list, with_values

HEAD = "name: a\nmodel: {name: cnn_bn}\ndata: {name: digits}\n"


def search(section: str, *overrides: str, head: str = HEAD) -> Search:
    found = read("", *overrides, text=f"{head}search:\n{section}").search
    assert found is not None
    return found


def complaints(section: str, *overrides: str, head: str = HEAD) -> list[str]:
    return errors("", *overrides, text=f"{head}search:\n{section}")


def test_the_example_of_the_page_is_a_sweep() -> None:
    text = """\
  trials: 40
  sampler: tpe
  pruner: median
  maximize: val/accuracy
  space:
    train.optimizer.lr: {from: 1e-4, to: 1, log: true}
    model.depth: [11, 13, 16]
    data.batch_size: {from: 32, to: 512, step: 32}
"""
    found = search(text, head="name: a\nmodel: {name: vgg}\ndata: {name: cifar10}\n")
    assert (found.trials, found.sampler, found.pruner, found.objectives) == (
        *(40, "tpe", "median"),
        [("val/accuracy", True)],
    )
    assert dict(found.space) == {
        "train.optimizer.lr": Range(1e-4, 1, log=True),
        "model.depth": (11, 13, 16),
        "data.batch_size": Range(32, 512, 32),
    }
    plain = found.model_dump(mode="json")
    assert Search.model_validate(plain) == found, "as it was frozen"


def test_what_may_be_searched_for_is_told_of_each_epoch() -> None:
    known = {value for value in vars(tags).values() if isinstance(value, str)}
    known |= {tag for group in tags.HELD_OUT.values() for tag in group} | set(tags.TOP5.values())
    assert set(METRICS) <= known


@pytest.mark.parametrize(
    ("section", "objectives"),
    [
        ("", [("val/accuracy", True)]),
        ("  minimize: val/loss\n", [("val/loss", False)]),
        (
            "  maximize: [val/accuracy, train/images_per_second]\n  minimize: val/loss\n",
            [("val/accuracy", True), ("train/images_per_second", True), ("val/loss", False)],
        ),
    ],
)
def test_objectives(section: str, objectives: list[tuple[str, bool]]) -> None:
    assert search(f"{section}  space: {{train.epochs: [1, 2]}}\n").objectives == objectives


@pytest.mark.parametrize(
    ("section", "count"),
    [
        ("  space: {train.epochs: [1, 2]}", 20),
        ("  trials: 7\n  space: {train.epochs: [1, 2]}", 7),
        ("  sampler: grid\n  space: {train.epochs: [1, 2, 5], data.batch_size: {from: 32, to: 128, step: 32}}", 12),
        ("  sampler: grid\n  trials: 5\n  space: {train.epochs: [1, 2, 5], data.batch_size: [32, 64]}", 5),
        ("  sampler: grid\n  space: {train.epochs: {from: 1, to: 4}}", 4),
        ("  sampler: grid\n  space: {train.label_smoothing: {from: 0.0, to: 0.3, step: 0.1}}", 4),
    ],
)
def test_how_many_trials(section: str, count: int) -> None:
    assert search(f"{section}\n").num_trials == count


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("  trials: 3", "search.space: is missing and has no default"),
        ("  space: {}", "search.space: {} should have at least 1 item"),
        ("  space: 5", "search.space: 5 should be a mapping of fields"),
        ("  trails: 3\n  space: {train.epochs: [1]}", "search.trails: there is no such field; did you mean 'trials'?"),
        ("  trials: 0\n  space: {train.epochs: [1]}", "search.trials: 0 should be at least 1"),
        ("  sampler: tpee\n  space: {train.epochs: [1]}", "search.sampler: 'tpee' is not allowed; did you mean 'tpe'?"),
        (
            "  maximize: val/acc\n  space: {train.epochs: [1]}",
            "search.maximize: 'val/acc' is not allowed; did you mean",
        ),
        (
            "  space: {train.epochs: 3}",
            "search.space.train.epochs: 3 should be a list of choices, as [0.1, 0.01], or a range, as {from: 1e-3,",
        ),
        ("  space: {train.epochs: []}", "search.space.train.epochs: [] should have from 1 to 1,000 choices"),
        ("  space: {train.epochs: [1, 1]}", "search.space.train.epochs: [1, 1] has 1 twice"),
        (
            "  space: {train.epochs: {form: 1, to: 2}}",
            "search.space.train.epochs: {\"form\": 1, \"to\": 2} has no such field as 'form'; did you mean 'from'?",
        ),
        ("  space: {train.epochs: {from: 1}}", "lacks to: a range is {from: 1e-3, to: 1}"),
        ("  space: {train.epochs: {from: 2, to: 1}}", "goes from 2 to 1; from should be below to"),
        ("  space: {train.epochs: {from: 1, to: ten}}", "has 'ten' as to, which should be a number"),
        (
            "  space: {train.epochs: {from: 1, to: 9, step: 0}}",
            "has a step of 0, which should be above 0 and at most 8",
        ),
        ("  space: {train.epochs: {from: 0, to: 9, log: true}}", "is logarithmic, so that from should be above 0"),
        ("  space: {train.epochs: {from: 1, to: 9, log: true, step: 2}}", "has log and step; one of them"),
        (f"  space: {{train.epochs: {{from: 1, to: {2 * MOST}}}}}", "should be of finite numbers"),
        (
            "  space: {train: {optimizer: {lr: [0.1, 1]}}}",
            "has no such field as 'optimizer'; fields are named with dots, as train.optimizer.lr",
        ),
        (
            "  space: {train.optimizer: [{lr: 0.1}], train.optimizer.lr: [1, 2]}",
            "has train.optimizer.lr, which lies in train.optimizer, that is searched too",
        ),
        ("  space: {name: [a, b]}", "is no field that can be searched"),
        ("  space: {resources.priority: [1, 2]}", "is no field that can be searched"),
        ("  space: {search.trials: [1, 2]}", "is no field that can be searched"),
        (
            "  pruner: median\n  maximize: [val/accuracy, val/loss]\n  space: {train.epochs: [1]}",
            "search.pruner: 'median' needs a single objective; write none",
        ),
        (
            "  maximize: val/loss\n  minimize: val/loss\n  space: {train.epochs: [1]}",
            "search.minimize: names a scalar twice",
        ),
        (
            "  sampler: cmaes\n  space: {train.epochs: [1, 2]}",
            "search.sampler: 'cmaes' needs two ranges or more in the space",
        ),
        (
            "  sampler: grid\n  space: {train.optimizer.lr: {from: 0.1, to: 1}}",
            "search.sampler: 'grid' cannot count the values of train.optimizer.lr",
        ),
        (
            "  sampler: grid\n  space: {train.epochs: {from: 1, to: 5000}, data.batch_size: {from: 1, to: 5000}}",
            "search.trials: the grid has 25,000,000 points; say how many of them",
        ),
    ],
)
def test_a_mistake_gets_its_message(section: str, expected: str) -> None:
    found = complaints(f"{section}\n")
    assert expected in "\n".join(found)
    assert all(line.startswith("job.yaml:") for line in found), "with its line"


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("train.epoch: [1, 2]", "5: train.epoch: there is no such field; did you mean 'epochs'?"),
        ("train.accumulate: [1, 2.5]", "5: train.accumulate: 2.5 should be a whole number"),
        (
            "train.optimizer.name: [sgd, adm]",
            "5: train.optimizer.name: 'adm' is not an optimizer; did you mean 'adam'?",
        ),
        ("data.batch_size: {from: 16, to: 100000}", "5: data.batch_size: 100000 should be at most 65536"),
        ("data.augment: [[], [flipp]]", "5: data.augment.0: 'flipp' is not an augmentation; did you mean 'flip'?"),
        ("model.name: [cnn_bn, net]", "5: model.name: 'net' needs images of at least 16 pixels, and digits has 8"),
        ("name.x: [1, 2]", "5: search.space.name.x: [1, 2] is no field that can be searched"),
        ("data.name.x: [1, 2]", "5: data.name.x: 'name' is 'digits', which has no fields of its own"),
        (
            "data.augment: [[], [{name: crop, padding: 60}]]",
            "5: data.augment.0.padding: 60 is more than the images' 8 pixels",
        ),
        (
            "train.schedule.warmup_epochs: [0, 50]",
            "5: train.schedule.warmup_epochs: 50 is longer than the whole training of 10 epochs",
        ),
    ],
)
def test_every_value_is_tried_before_anything_is_queued(space: str, expected: str) -> None:
    found = complaints(f"  space:\n    {space}\n".replace("  space:\n    ", "  space: {").rstrip("\n") + "}\n")
    assert any(expected in line for line in found), found


def test_a_value_that_spoils_another_field_is_the_one_that_is_told() -> None:
    """The conflict is that of the model; the line and the field are those of the value."""
    head = "name: a\nmodel: {name: vgg, depth: 11}\ndata: {name: image_folder, path: x, image_size: 32}\n"
    (line,) = complaints("  space:\n    data.image_size:\n      - 32\n      - 16\n", head=head)
    assert line.startswith(
        "job.yaml:8: data.image_size: 16 does not fit: model.name: 'vgg' needs images of at least 32"
    )


def test_what_is_searched_need_not_stand_elsewhere() -> None:
    spec = read(text="name: a\nmodel: {}\ndata: {name: digits}\nsearch: {space: {model.name: [cnn_bn, resnet9]}}\n")
    assert spec.model.name == "cnn_bn"


def test_all_problems_are_told_at_once() -> None:
    section = "  trials: 0\n  space: {train.epochs: 3}\n"
    assert len(complaints(section, head=HEAD.replace("digits", "digts"))) == 3


@pytest.mark.parametrize(
    ("overrides", "space"),
    [
        (["train.optimizer.lr=0.1,0.05"], {"train.optimizer.lr": (0.1, 0.05)}),
        (["train.epochs=1, 2", "data.batch_size=32,64"], {"train.epochs": (1, 2), "data.batch_size": (32, 64)}),
        (["model.name=cnn_bn,resnet9"], {"model.name": ("cnn_bn", "resnet9")}),
        (["train.schedule.name=cosine,constant"], {"train.schedule.name": ("cosine", "constant")}),
    ],
)
def test_several_values_make_a_grid_without_a_file(overrides: list[str], space: dict[str, Any]) -> None:
    found = read("", *overrides, text=HEAD).search
    assert found is not None
    assert (dict(found.space), found.sampler, found.num_trials) == (space, "grid", 2 ** len(space))


def test_a_grid_without_a_file_may_be_told_more() -> None:
    def told(*overrides: str) -> tuple[str, int]:
        found = read("", "train.epochs=1,2", "data.batch_size=32,64", *overrides, text=HEAD).search
        assert found is not None
        return found.sampler, found.num_trials

    assert told("search.maximize=val/accuracy") == ("grid", 4)
    assert told("search.trials=3") == ("grid", 3)
    assert told("search.sampler=random", "search.trials=3") == ("random", 3)


@pytest.mark.parametrize("override", ["description=one, two", "description='a, b'", "train.optimizer.lr=0.1"])
def test_text_with_a_comma_is_text(override: str) -> None:
    assert read("", override, text=HEAD).search is None


def test_what_is_wrong_in_a_list_is_told_with_the_override() -> None:
    (line,) = errors("", "train.optimizer.lr=0.1,O.05", text=HEAD)
    assert line == "--set train.optimizer.lr=0.1,O.05: train.optimizer.lr: 'O.05' should be a number"


def test_a_list_without_its_brackets_is_no_grid() -> None:
    (line,) = errors("", "data.augment=crop,flip", text=HEAD)
    assert line.endswith("data.augment: 'crop,flip' should be a list; write [crop,flip]")


def test_overrides_of_a_sweep() -> None:
    section = "  trials: 5\n  space: {train.epochs: [1, 2], data.batch_size: [32, 64]}\n"
    assert search(section, "search.trials=9").trials == 9
    settled = search(section, "train.epochs=3")
    assert list(settled.space) == ["data.batch_size"], "a value that is given is searched no more"
    assert dict(search(section, "train.epochs=3,4").space)["train.epochs"] == (3, 4)
    assert read("", "search=null", text=f"{HEAD}search:\n{section}").search is None


@pytest.mark.parametrize(
    ("override", "may_be"),
    [
        ("a=1,2", True),
        ("a=1", False),
        ("a=[1, 2]", False),
        ("a={b: 1, c: 2}", False),
        ("a='1,2'", False),
        ("a=", False),
    ],
)
def test_what_may_be_a_list(override: str, may_be: bool) -> None:
    assert may_be_list(override) == may_be


def test_the_file_of_a_trial() -> None:
    written = {"name": "a", "train": {"epochs": 3, "optimizer": None}, "search": {"space": {}}}
    values = {"train.optimizer.lr": 0.1, "data.batch_size": 8}
    expected = {"name": "a", "train": {"epochs": 3, "optimizer": {"lr": 0.1}}, "data": {"batch_size": 8}}
    assert with_values(written, values) == expected
    assert written == {"name": "a", "train": {"epochs": 3, "optimizer": None}, "search": {"space": {}}}, (
        "left as it was"
    )


@pytest.mark.parametrize(
    ("values", "points"),
    [
        (Range(1, 4), [1, 2, 3, 4]),
        (Range(0.0, 0.3, 0.1), pytest.approx([0.0, 0.1, 0.2, 0.3])),
        (Range(1, 10, 4), [1, 5, 9]),
        (Range(0.1, 1), None),
        (Range(1, 10**9), None),
    ],
)
def test_the_points_of_a_range(values: Range, points: Any) -> None:
    assert values.points() == points


def test_a_space_is_a_value() -> None:
    one, other = Space({"a": (1, [2])}), Space({"a": (1, [2])})
    assert one == other
    assert hash(one) == hash(other)


def test_very_many_values_are_tried_in_a_moment() -> None:
    numbers = ", ".join(str(1 + index) for index in range(1000))
    assert len(dict(search(f"  space: {{train.epochs: [{numbers}]}}\n").space)["train.epochs"]) == 1000


def test_an_override_that_is_no_field_is_told_with_a_sweep_too() -> None:
    with pytest.raises(SpecError, match="trian"):
        search("  space: {train.epochs: [1, 2]}\n", "trian.epochs=3")


def test_several_lists_make_a_grid() -> None:
    found = read("", "data.augment=[crop], [crop, flip]", text=HEAD.replace("digits", "mnist")).search
    assert found is not None
    assert dict(found.space) == {"data.augment": (["crop"], ["crop", "flip"])}
    assert read("", "data.augment=[crop, flip]", text=HEAD.replace("digits", "mnist")).search is None


def test_where_nothing_is_left_to_search_it_says_what_to_do() -> None:
    (line,) = complaints("  space: {train.epochs: [1, 2]}\n", "train.epochs=3")
    assert line == "--set train.epochs=3: search.space: leaves nothing to search; add --set search=null for one job"
