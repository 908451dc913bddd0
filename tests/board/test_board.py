"""What is written for TensorBoard, read back with TensorBoard's own readers."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch import nn

from pipeline.board import graph, histograms, layout, tags
from pipeline.board.writer import Board


def events(folder: Path) -> list[Event]:
    return [event for path in sorted(folder.glob("events.*")) for event in EventFileLoader(str(path)).Load()]


def read(folder: Path) -> EventAccumulator:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    reader.Reload()
    return reader


def test_all_scalars_of_a_step_are_one_event(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        board.scalars(5, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert [[value.tag for value in e.summary.value] for e in events(tmp_path) if e.step == 5] == [["a", "b", "c"]]


@pytest.mark.parametrize("first_step", [0, 7])
def test_an_attempt_says_from_which_step_on_it_speaks(tmp_path: Path, first_step: int) -> None:
    with Board(tmp_path, first_step=first_step):
        pass
    starts = [e for e in events(tmp_path) if e.session_log.status == SessionLog.START]
    assert [e.step for e in starts] == [first_step]


def test_a_resumed_curve_has_each_step_once_and_hides_what_was_written_after_the_checkpoint(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        for step in (10, 20, 30, 40):
            board.scalars(step, {tags.TRAIN_LOSS: float(step)})
    with Board(tmp_path, first_step=21) as board:  # the checkpoint was taken after step 20
        for step in (30, 40, 50):
            board.scalars(step, {tags.TRAIN_LOSS: step + 0.5})
    points = [(point.step, point.value) for point in read(tmp_path).Scalars(tags.TRAIN_LOSS)]
    assert points == [(10, 10), (20, 20), (30, 30.5), (40, 40.5), (50, 50.5)]


def test_what_was_flushed_can_be_read_while_the_writer_lives(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        board.scalars(1, {"a": 1.0})
        board.flush()
        assert [point.value for point in read(tmp_path).Scalars("a")] == [1.0]


def test_a_scalar_that_is_no_number_is_kept_as_such(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        board.scalars(1, {"a": math.nan})
    assert math.isnan(read(tmp_path).Scalars("a")[0].value)


def test_every_parameter_and_its_gradient_has_a_histogram(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model(torch.randn(8, 4)).square().sum().backward()
    with Board(tmp_path, first_step=0) as board:
        counted = histograms.count_parameters(model, levels={})
        assert counted is not None
        counted.write(board, step=1)
    names = [name for name, _ in model.named_parameters()]
    expected = {tag(name) for name in names for tag in (tags.parameter, tags.gradient)}
    assert set(read(tmp_path).Tags()["histograms"]) == expected


def test_a_histogram_counts_what_torch_counts(tmp_path: Path) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    with Board(tmp_path, first_step=0) as board:
        histograms.add(board, {"h": values}, step=1)
    summary = read(tmp_path).Histograms("h")[0].histogram_value
    assert summary.num == 1000
    assert summary.min == pytest.approx(float(values.min()))
    assert summary.max == pytest.approx(float(values.max()))
    assert summary.sum == pytest.approx(float(values.sum()), abs=1e-3)
    assert sum(summary.bucket) == 1000
    assert len(summary.bucket) == histograms.NUM_BINS


def test_histograms_of_many_tensors_are_those_of_each_alone(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(2,), (0,), (7,), (histograms.ROW,), (3, 5, 2, 40), (2 * histograms.ROW + 1,), (64, 64)]
    tensors = {str(size): torch.randn(size, generator=generator) * 10.0**n for n, size in enumerate(sizes)}
    tensors["half"] = torch.randn(100, generator=generator).bfloat16()
    with Board(tmp_path, first_step=0) as board:
        histograms.add(board, tensors, step=1)
    reader = read(tmp_path)
    assert set(reader.Tags()["histograms"]) == set(tensors) - {"(0,)"}
    for tag in reader.Tags()["histograms"]:
        found, values = reader.Histograms(tag)[0].histogram_value, tensors[tag].double().flatten()
        assert (found.min, found.max, found.num) == (float(values.min()), float(values.max()), len(values))
        assert found.sum == pytest.approx(float(values.sum()), rel=1e-5, abs=1e-5)
        assert found.sum_squares == pytest.approx(float(values.square().sum()), rel=1e-5)
        expected, _ = torch.histogram(values, histograms.NUM_BINS, range=(found.min, found.max))
        assert sum(abs(a - b) for a, b in zip(found.bucket, expected.tolist(), strict=True)) <= 0.02 * len(values)


@pytest.mark.parametrize("values", [[0.0, 1e-44], [-3e38, 3e38], [-1e-30, 1e-30, math.nan]])
def test_a_span_that_is_too_small_or_too_large_for_float32_loses_no_value(tmp_path: Path, values: list[float]) -> None:
    with Board(tmp_path, first_step=0) as board:
        histograms.add(board, {"h": torch.tensor(values)}, step=1)
    bucket = read(tmp_path).Histograms("h")[0].histogram_value.bucket
    assert (bucket[0], sum(bucket), bucket[-1]) == (1, 2, 1)


def test_tensors_are_counted_in_groups_as_they_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a large network takes no more memory for it than a small one."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(size, generator=generator) for size in (5, 3000, 9000, 1, 20_000)]
    at_once = histograms.count(tensors)
    monkeypatch.setattr(histograms, "GROUP_VALUES", 4 * histograms.ROW)
    torch.testing.assert_close(histograms.count(tensors), at_once)


@pytest.mark.parametrize("values", [[1.0, 1.0], [0.0], [math.nan, 2.0, math.inf]])
def test_constant_and_broken_tensors_have_a_histogram_of_what_is_finite(tmp_path: Path, values: list[float]) -> None:
    with Board(tmp_path, first_step=0) as board:
        histograms.add(board, {"h": torch.tensor(values)}, step=1)
    finite = [value for value in values if math.isfinite(value)]
    assert sum(read(tmp_path).Histograms("h")[0].histogram_value.bucket) == len(finite)


def test_a_tensor_without_a_finite_value_leaves_none(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        histograms.add(board, {"h": torch.tensor([math.nan, math.inf])}, step=1)
        board.scalars(1, {"a": 1.0})
    assert read(tmp_path).Tags()["histograms"] == []


class Network(nn.Module):
    """With all that tracing could change: dropout, batch statistics, a count of its calls, random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
        self.head = nn.Linear(4, 2)
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits: torch.Tensor = self.head(self.features(images).mean((2, 3)))
        return logits + torch.randn(2)


def graph_of(folder: Path, model: nn.Module) -> GraphDef:
    with Board(folder, first_step=0) as board:
        graph.add_graph(board, model, channels=3, image_size=8)
    (content,) = (event.graph_def for event in events(folder) if event.graph_def)
    return GraphDef.FromString(content)


def test_a_graph_has_the_names_that_the_code_has(tmp_path: Path) -> None:
    names = [node.name for node in graph_of(tmp_path, Network()).node]
    for scope in ("Network/Sequential[features]/Conv2d[0]/", "Network/Linear[head]/"):
        assert any(name.startswith(scope) for name in names), names


def test_tracing_leaves_model_and_random_state_as_they_are(tmp_path: Path) -> None:
    model = Network().bfloat16()
    model(torch.randn(2, 3, 8, 8, dtype=torch.bfloat16)).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad for parameter in model.parameters()]
    state = torch.get_rng_state()
    graph_of(tmp_path, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert model.features[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(a is b for a, b in zip(gradients, (p.grad for p in model.parameters()), strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_wrapped_model_is_traced_as_it_was_written(tmp_path: Path) -> None:
    model = Network()
    wrapped = [model, nn.DataParallel(model), nn.DataParallel(nn.DataParallel(model))]
    if shutil.which("cc") or shutil.which("gcc"):
        wrapped += [torch.compile(model), torch.compile(nn.DataParallel(model))]  # type: ignore[list-item]
    assert all(graph.unwrapped(each) is model for each in wrapped)
    plain = [node.name for node in graph_of(tmp_path / "plain", model).node]
    for number, each in enumerate(wrapped):
        assert [node.name for node in graph_of(tmp_path / str(number), each).node] == plain


def test_a_failure_to_trace_prints_nothing_and_changes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, state = nn.Linear(5, 2), torch.get_rng_state()
    with Board(tmp_path, first_step=0) as board, pytest.raises(RuntimeError, match="mat1 and mat2"):
        graph.add_graph(board, model, channels=3, image_size=8)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(event.graph_def for event in events(tmp_path))


def test_the_layout_puts_train_and_test_on_one_chart(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        layout.add_layout(board)
    found = Layout.FromString(read(tmp_path).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in found.category for chart in category.chart}
    everything = [
        *tags.TRAINING,
        tags.EPOCH_LOSS,
        tags.EPOCH_ACCURACY,
        tags.TEST_LOSS,
        tags.TEST_ACCURACY,
        tags.BEST_ACCURACY,
        tags.TOP5_ACCURACY,
        tags.class_accuracy("a b"),
    ]

    def drawn(title: str) -> set[str]:
        return {tag for tag in everything if any(re.search(pattern, tag) for pattern in charts[title])}

    assert drawn("loss") == {tags.EPOCH_LOSS, tags.TEST_LOSS}
    assert drawn("accuracy") == {tags.EPOCH_ACCURACY, tags.TEST_ACCURACY, tags.TOP5_ACCURACY}
    assert drawn("test accuracy of each class") == {tags.class_accuracy("a b")}
