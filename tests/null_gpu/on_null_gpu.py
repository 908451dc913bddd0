"""What the training launches, copies and waits for. `test_null_gpu.py` runs these on a GPU that computes nothing.

So nothing here looks at what was computed. The numbers of launches are those of torch 2.14; a change that lowers them
lowers the limit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import Recorder, logbook_of
from null_gpu import Recording, replace_convolutions
from PIL import Image
from quick import EVERYTHING_SHOWN

from pipeline.board import curves, histograms
from pipeline.board.writer import Board
from pipeline.data import loader as loaders
from pipeline.data.dataset import Dataset
from pipeline.data.normalization import Normalization
from pipeline.data.splits import FileSplit, Split
from pipeline.errors import DeviceError, DivergedError
from pipeline.home.paths import RunPaths
from pipeline.jobfile import catalog
from pipeline.jobfile.spec import Spec
from pipeline.models.quantized_figures import step_sizes, weight_levels
from pipeline.stop import Stop
from pipeline.training import checkpoint, device, engine, loop, metrics
from pipeline.training.captured_forward import CapturedForward
from pipeline.training.captured_step import WARM_UP, CapturedStep, choose
from pipeline.training.cuda_graph import CannotRecordError, record
from pipeline.training.engine import Engine
from pipeline.training.evaluation import Evaluation, evaluate, judge
from pipeline.training.saver import HostMemory, Saver
from pipeline.training.step import EagerStep

CONVOLUTIONS = replace_convolutions()
MODELS: dict[str, dict[str, Any]] = {
    "net": {"name": "net"},
    "cnn_bn": {"name": "cnn_bn"},
    "vgg11_bn": {"name": "vgg", "depth": 11, "batch_norm": True},
}
FEW_BITS = {
    "lsq": {"weights": {"bits": 4, "per": "channel"}, "activations": {"bits": 4}},
    "affine": {"weights": {"bits": 4, "scheme": "affine"}, "activations": {"bits": 4, "scheme": "affine"}},
    "dorefa": {"weights": {"bits": 1, "scheme": "dorefa"}, "activations": {"bits": 4, "scheme": "dorefa"}},
}
LAUNCHES = {"net": 65, "cnn_bn": 96, "vgg11_bn": 149}  # of a step of 128 images in bf16, with SGD
CAPTURED_KERNELS = {"net": 47, "cnn_bn": 84, "vgg11_bn": 131}
# Of a step of `cnn_bn` in bf16.
QUANTIZED_LAUNCHES = {"lsq": 224, "symmetric": 211, "affine": 263, "dorefa": 256}
NUM_TRAIN, NUM_TEST = 50_000, 10_000
CHUNK_BYTES = loaders.COPIED_VALUES // (32 * 32 * 3) // 128 * 128 * 32 * 32 * 3  # of images that do not fit


@pytest.fixture(scope="module")
def cifar() -> Dataset:
    """As large as CIFAR-10; of one colour."""

    def split(num: int) -> Split:
        return Split(torch.full((num, 32, 32, 3), 100, dtype=torch.uint8), torch.arange(num) % 10)

    return Dataset(split(NUM_TRAIN), split(NUM_TEST), tuple("abcdefghij"), "", (0.5,) * 3, (0.25,) * 3, ())


@pytest.fixture(autouse=True)
def ordinary_kernels() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_device(0)


def make_engine(
    cifar: Dataset,
    model: str = "net",
    *,
    on: str = "auto",
    augment: tuple[str | dict[str, Any], ...] = ("crop", "flip", "cutout"),
    quantize: dict[str, Any] | None = None,
    **train: Any,
) -> Engine:
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    spec = Spec.model_validate(
        {
            "name": "test",
            "model": {**MODELS[model], "quantize": quantize},
            "data": {"name": "cifar10", "batch_size": 128, "augment": augment},
            "train": {"epochs": 3, "optimizer": sgd, "schedule": {"name": "one_cycle"}, **train},
            "log": EVERYTHING_SHOWN,
            "resources": {"device": on},
        }
    )
    if spec.train.deterministic:
        device.make_deterministic()
    return Engine(spec, cifar, device.choose(spec))


def steps_of(trained: Engine, num: int = 4) -> Recording:
    """Some steps, after those that load libraries and make the optimizer's state."""
    steps = loop.take_steps(trained, EagerStep(trained))
    for _ in itertools.islice(steps, 2):
        pass
    with Recording() as recording:
        for _ in itertools.islice(steps, num):
            pass
    return recording


# A step


@pytest.mark.parametrize("model", MODELS)
def test_a_step_waits_for_nothing_and_launches_no_more_than_it_did(model: str, cifar: Dataset) -> None:
    recording = steps_of(make_engine(cifar, model))
    assert recording.waits == {}
    assert not [line for line in recording.copies if "host" in line]
    assert recording.launches / 4 <= LAUNCHES[model]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "more",
    [
        *({}, {"clip_grad_norm": 1.0}, {"accumulate": 3}, {"label_smoothing": 0.1}),
        *({"ema": {}}, {"lookahead": {"every": 2}}),
    ],
    ids=str,
)
def test_no_kind_of_step_waits(precision: str, more: dict[str, Any], cifar: Dataset) -> None:
    recording = steps_of(make_engine(cifar, precision=precision, **more))
    assert recording.waits == {}
    assert recording.launches > 0


@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_no_optimizer_waits(name: str, precision: str, cifar: Dataset) -> None:
    assert steps_of(make_engine(cifar, precision=precision, optimizer={"name": name})).waits == {}


@pytest.mark.parametrize("scheme", ["lsq", "symmetric", "affine", "dorefa"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_quantized_step_waits(scheme: str, precision: str, cifar: Dataset) -> None:
    quantize = {"weights": {"scheme": scheme, "bits": 4}, "activations": {"scheme": scheme, "bits": 8}}
    trained = make_engine(cifar, "cnn_bn", quantize=quantize, precision=precision)
    recording = steps_of(trained)
    assert recording.waits == {}
    assert not [line for line in recording.copies if "host" in line]
    assert recording.launches / 4 <= QUANTIZED_LAUNCHES[scheme]


def test_deterministic_steps_wait_for_nothing(cifar: Dataset) -> None:
    assert steps_of(make_engine(cifar, "cnn_bn", deterministic=True)).waits == {}


def test_a_step_can_be_captured(cifar: Dataset) -> None:
    """Forward, backward and the update, as one graph; whatever waits in between is an error."""
    trained = make_engine(cifar, "cnn_bn")
    step, (images, labels) = EagerStep(trained), next(trained.loader.epoch(0))
    for _ in range(2):
        step([(images, labels)], num_batches=1, lr=0.1)
    graph = torch.cuda.CUDAGraph()
    with Recording() as recording, torch.cuda.graph(graph):
        step([(images, labels)], num_batches=1, lr=0.1)
    during = recording.lines[recording.lines.index("capture begin") :]
    assert [line for line in during if line.startswith("wait") or "pageable" in line] == []
    assert [line for line in recording.lines if line.startswith("capture")] == ["capture begin", "capture end"]
    with Recording() as recording:
        graph.replay()
    assert recording.lines == ["graph launch"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("more", [{}, {"precision": "fp16", "clip_grad_norm": 1.0}, {"accumulate": 3}], ids=str)
@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
def test_a_captured_step_is_one_launch_and_a_few_copies(
    name: str, more: dict[str, Any], model: str, cifar: Dataset
) -> None:
    trained = make_engine(cifar, model, **{"optimizer": {"name": name}, "capture": True, **more})
    step = choose(trained, log=pytest.fail)
    assert isinstance(step, CapturedStep)
    steps = loop.take_steps(trained, step)
    for _ in itertools.islice(steps, WARM_UP + 1):
        pass
    gradients = [parameter.grad for parameter in trained.model.parameters()]
    with Recording() as recording:
        for _ in itertools.islice(steps, 4):
            pass
    assert recording.waits == {}
    assert recording.lines.count("graph launch") == 4
    assert recording.launches == 0
    num_batches = more.get("accumulate", 1)
    assert recording.copies == {"device>device": 4 * (1 + 4 * num_batches)}, "rates; images, labels, loss and logits"
    assert all(a is b.grad for a, b in zip(gradients, trained.model.parameters(), strict=True))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room\nand more"), AssertionError("no room")], ids=repr)
def test_what_cannot_be_recorded_leaves_nothing_behind(error: Exception) -> None:
    stream, seen = torch.cuda.current_stream(), list[weakref.ref[torch.Tensor]]()

    def fails() -> None:
        values = torch.zeros(1000, device="cuda") + 1
        seen.append(weakref.ref(values))
        raise error

    with pytest.raises(CannotRecordError, match=r"^no room$"):
        record(fails)
    error.__traceback__ = None
    assert seen[0]() is None
    assert torch.cuda.current_stream() == stream
    replay, values = record(lambda: torch.zeros(1000, device="cuda") + 1)
    with Recording() as recording:
        replay()
    assert recording.lines == ["graph launch"]
    assert values.shape == (1000,)


def test_a_graph_that_would_leave_less_memory_than_it_keeps_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for left, is_kept in ((50, True), (49, False)):
        free = iter([100 << 20, left << 20])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (next(free), 0))
        with contextlib.nullcontext() if is_kept else pytest.raises(CannotRecordError, match=r"51 MiB.* leave 49 MiB"):
            record(lambda: torch.zeros(1000, device="cuda"))


@pytest.mark.parametrize("model", MODELS)
def test_a_graph_has_fewer_kernels_than_an_eager_step(model: str, cifar: Dataset) -> None:
    """As weights are cast to bf16 by one of them, and gradients back by another."""
    trained = make_engine(cifar, model)
    steps = loop.take_steps(trained, choose(trained, log=pytest.fail))
    for _ in itertools.islice(steps, WARM_UP):
        pass
    with Recording() as recording:
        next(steps)
    begin, end = recording.lines.index("capture begin"), recording.lines.index("capture end")
    kernels = [line for line in recording.lines[begin:end] if line.startswith("kernel")]
    assert 0 < len(kernels) <= CAPTURED_KERNELS[model]


@pytest.mark.parametrize("more", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}], ids=str)
def test_a_captured_step_of_mixed_images_mixes_them_before(more: dict[str, float], cifar: Dataset) -> None:
    trained = make_engine(cifar, **more)
    steps = loop.take_steps(trained, choose(trained, log=pytest.fail))
    for _ in itertools.islice(steps, WARM_UP + 1):
        pass
    with Recording() as recording:
        for _ in itertools.islice(steps, 40):
            pass
    assert recording.waits == {}
    assert recording.lines.count("graph launch") == 40
    assert recording.launches <= 40 * 5, "roll, mix, and the share"
    assert set(recording.copies) == {"device>device"}


def test_steps_are_captured_by_default_but_not_with_an_optimizer_that_is_not_fused(cifar: Dataset) -> None:
    assert make_engine(cifar).setting.capture
    assert not make_engine(cifar, capture=False).setting.capture
    assert not make_engine(cifar, fused=False).setting.capture


# An epoch


ALTERNATE, REFLECT = {"name": "flip", "alternate": True}, {"name": "crop", "padding_mode": "reflect"}


@pytest.mark.parametrize(
    ("augment", "launches"),
    [(("crop", "flip"), 40), (("crop", "flip", "cutout"), 82), (("crop", ALTERNATE), 43), ((REFLECT, "flip"), 67)],
    ids=str,
)
def test_the_batches_of_an_epoch_cost_few_calls(
    augment: tuple[str | dict[str, Any], ...], launches: int, cifar: Dataset
) -> None:
    trained = make_engine(cifar, augment=augment)
    list(itertools.islice(trained.loader.epoch(0), 1))
    with Recording() as recording:
        assert sum(len(labels) for _, labels in trained.loader.epoch(1)) == NUM_TRAIN
    assert recording.waits == {}
    assert recording.launches <= launches, "three chunks"
    assert recording.copies == {"host>device": len(augment) + 1 + ("cutout" in augment)}, "the order, and what is drawn"


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", [*catalog.AUGMENTATIONS, ALTERNATE, REFLECT], ids=str)
def test_no_augmentation_waits(name: str | dict[str, Any], deterministic: bool, cifar: Dataset) -> None:
    trained = make_engine(cifar, augment=(name,), deterministic=deterministic)
    list(itertools.islice(trained.loader.epoch(0), 1))
    with Recording() as recording:
        for _ in trained.loader.epoch(1):
            pass
    assert recording.waits == {}
    assert {kind for kind in recording.copies if "host" in kind} == {"host>device"}


def test_images_that_do_not_fit_come_from_pinned_memory(cifar: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "_fits", lambda *_: False)
    trained = make_engine(cifar)
    chunks = -(-NUM_TRAIN // (loaders.COPIED_VALUES // (32 * 32 * 3) // 128 * 128))
    for _ in range(3):
        with Recording() as recording:
            assert sum(len(labels) for _, labels in trained.loader.epoch(0)) == NUM_TRAIN
        assert recording.waits == {}
        assert recording.copies == {"host>device": 5 + chunks}
        assert recording.lines.count("stream waits for event") == chunks, "before it uses what another stream copies"
        copied = [number for number, line in enumerate(recording.lines) if line.endswith(str(CHUNK_BYTES))]
        used_up = recording.lines[copied[-2] : copied[-1]].count("event record")
        assert used_up == 3, "of the copy, of the pinned memory, and of what two streams use, when it is given back"
    before = torch.cuda.memory_reserved()
    for _ in trained.loader.epoch(1):
        pass
    assert torch.cuda.memory_reserved() == before, "each epoch uses the memory of the one before"


@pytest.mark.parametrize("num_readers", [0, 2])
def test_images_from_files_come_from_pinned_memory(num_readers: int, tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.png" for number in range(40)]
    for path in images:
        Image.new("RGB", (32, 32), (100, 100, 100)).save(path)
    read = loaders.Loader(
        FileSplit(tuple(images), torch.arange(40) % 10, image_size=32),
        batch_size=8,
        device=torch.device("cuda", 0),
        normalization=Normalization((0.5,) * 3, (0.25,) * 3),
        dtype=torch.bfloat16,
        augment=(),
        seed=0,
        shuffle=True,
        num_readers=num_readers,
    )
    for _ in range(2):
        with Recording() as recording:
            assert sum(len(labels) for _, labels in read.epoch(0)) == 40
        assert recording.waits == {}
        assert set(recording.copies) == {"host>device"}


@pytest.mark.parametrize("model", MODELS)
def test_an_evaluation_waits_once(model: str, cifar: Dataset) -> None:
    trained = make_engine(cifar, model, capture=False)
    evaluate(trained, Stop())
    with Recording() as recording:
        evaluate(trained, Stop())
    assert recording.waits == {"wait stream 0": 1, "copy device>pageable": 1}, "for a copy that is read"
    assert recording.launches <= {"net": 121, "cnn_bn": 185, "vgg11_bn": 285}[model]


def test_an_evaluation_of_an_average_waits_once(cifar: Dataset) -> None:
    trained = make_engine(cifar, ema={})
    evaluate(trained, Stop())
    with Recording() as recording, trained.average.in_use():
        evaluate(trained, Stop())
    assert recording.waits == {"wait stream 0": 1, "copy device>pageable": 1}


@pytest.mark.parametrize("model", MODELS)
def test_a_captured_evaluation_launches_its_batches_as_graphs(model: str, cifar: Dataset) -> None:
    trained = make_engine(cifar, model)
    choose(trained, log=pytest.fail)
    evaluate(trained, Stop())
    assert isinstance(trained.forward, CapturedForward)
    with Recording() as recording:
        evaluate(trained, Stop())
    assert recording.waits == {"wait stream 0": 1, "copy device>pageable": 1}, "for a copy that is read"
    assert recording.lines.count("graph launch") == 4
    assert recording.launches <= 30, "to load the images, and to judge the logits"


def test_features_are_read_with_the_rest(cifar: Dataset) -> None:
    trained = make_engine(cifar, "cnn_bn")
    with Recording() as recording:
        evaluation = evaluate(trained, Stop(), features_of=[0, 10, 9_999])
    assert recording.waits == {"wait stream 0": 1, "copy device>pageable": 1}
    assert evaluation.features is not None
    assert evaluation.features.shape == (3, 512)
    assert evaluation.features.is_pinned()


@pytest.mark.parametrize("model", MODELS)
def test_the_end_of_an_epoch_with_everything_due_waits_twice(
    model: str, cifar: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the evaluation and the training's means. All else is written while the next epoch is trained."""

    def evaluated(*given: Any, **options: Any) -> Evaluation:
        """Nothing is computed: what is found is chance, and may be no number."""
        found = evaluate(*given, **options)
        confusion, confidence = torch.eye(10, dtype=torch.int64), torch.zeros(NUM_TEST)
        predicted = torch.zeros(NUM_TEST, dtype=torch.int64)
        return dataclasses.replace(found, loss=0.0, confusion=confusion, predicted=predicted, confidence=confidence)

    monkeypatch.setattr(loop, "evaluate", evaluated)
    monkeypatch.setattr(math, "isfinite", lambda value: isinstance(float(value), float))  # read, and whatever it is
    monkeypatch.setattr(metrics, "int", lambda _: 0, raising=False)  # of a number that may be none
    monkeypatch.setattr(checkpoint, "save", lambda *_, **__: None)
    is_next_trained, written = threading.Event(), list[bool]()
    trained = make_engine(cifar, model)
    with Board(tmp_path, first_step=0) as board:
        step = choose(trained, log=pytest.fail)
        logbook = logbook_of(board, trained)
        with Saver(RunPaths(tmp_path), before=logbook.settle) as saver:
            ended = loop.Loop(trained, step, logbook, Recorder(trained), saver.save, Stop())
            ended.record_epoch = lambda *_: written.append(is_next_trained.wait(60))
            for _ in range(2):
                for _ in itertools.islice(loop.take_steps(trained, step), WARM_UP + 2):
                    pass
                trained.batch = trained.loader.num_batches
                is_next_trained.set()
                saver.finish()
                is_next_trained.clear()
                with Recording() as recording:
                    ended.end_epoch()
                    for _ in itertools.islice(loop.take_steps(trained, step), 2):
                        pass
                    is_next_trained.set()
            saver.finish()
    assert written == [True, True]
    assert {kind: num for kind, num in recording.waits.items() if kind != "wait event 0"} == {
        "wait stream 0": 2,
        "copy device>pageable": 2,
    }
    assert recording.waits["wait event 0"] <= 1, "by the thread that writes"
    assert {kind for kind in recording.copies if "host" in kind} == {"device>host", "host>device"}
    *_, last_read = (number for number, line in enumerate(recording.lines) if "pageable" in line)
    assert recording.lines[last_read:].count("graph launch") == 2


def test_an_evaluation_of_many_classes_waits_once() -> None:
    """Loss, confusion and top-5 accuracy are read together."""
    logits, labels = torch.zeros(1000, 100, device="cuda"), torch.zeros(1000, dtype=torch.int64, device="cuda")
    with Recording() as recording:
        judge(logits, labels)
    assert recording.waits == {"wait stream 0": 1, "copy device>pageable": 1}


@pytest.mark.parametrize("is_deterministic", [False, True])
def test_pr_curves_of_all_classes_wait_for_nothing(is_deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are counted in pieces."""
    torch.use_deterministic_algorithms(is_deterministic)
    logits, labels = torch.zeros(1000, 100, device="cuda"), torch.zeros(1000, dtype=torch.int64, device="cuda")
    monkeypatch.setattr(curves, "AT_ONCE", 40_000)
    with Recording() as recording:
        curves.count(logits, labels)
    assert recording.waits == {}
    assert recording.copies["device>host"] == 2


def test_histograms_of_all_parameters_wait_for_nothing(cifar: Dataset, tmp_path: Path) -> None:
    trained = make_engine(cifar, "vgg11_bn")
    steps_of(trained, 1)
    with Board(tmp_path, first_step=0) as board, Recording() as recording:
        counted = histograms.count_parameters(trained.model, levels={})
        assert counted is not None
        counted.write(board, step=1)
    assert recording.waits == {}
    assert recording.launches <= 320


@pytest.mark.parametrize("quantize", FEW_BITS.values(), ids=FEW_BITS)
def test_histograms_of_a_quantized_network_wait_for_nothing_and_step_sizes_once(
    quantize: dict[str, Any], cifar: Dataset, tmp_path: Path
) -> None:
    trained = make_engine(cifar, "cnn_bn", quantize=quantize)
    steps_of(trained, 1)
    with Board(tmp_path, first_step=0) as board, Recording() as recording:
        levels = weight_levels(trained.model)
        counted = histograms.count_parameters(trained.model, levels=levels)
        assert counted is not None
        counted.write(board, step=1)
    assert len(levels) == 4
    assert recording.waits == {}
    with Recording() as recording:
        assert step_sizes(trained.model)
    assert recording.waits == {"wait stream 0": 1, "copy device>pageable": 1}


def test_what_is_shown_of_a_beginning_is_shown(cifar: Dataset, tmp_path: Path) -> None:
    """Texts, graph and images; and a profile of five steps, which finds no kernel here."""
    trained, lines = make_engine(cifar, "cnn_bn"), list[str]()
    with Board(tmp_path, first_step=0) as board:
        logbook = logbook_of(board, trained, log=lines.append)
        logbook.begin()
        for step in itertools.islice(loop.take_steps(trained, EagerStep(trained)), 20):
            if step == 1:
                logbook.after_first_step(trained.model, trained.loader)
            logbook.after_step(step)
        logbook.close()
    assert lines == []
    assert list((tmp_path / "profile").glob("*.gz"))


# Save and load


def test_a_checkpoint_is_copied_without_waiting(cifar: Dataset, tmp_path: Path) -> None:
    trained = make_engine(cifar, "vgg11_bn")
    steps_of(trained, 1)
    with Recording() as recording, contextlib.suppress(DivergedError):  # nothing is computed: what it finds is chance
        trained.state_dict()
    assert recording.waits == {"wait stream 0": 1, "copy device>pageable": 1}, "for the training's means"
    state = {"model": trained.model.state_dict(), "optimizer": trained.optimizer.state_dict()}
    memory = HostMemory()
    with Recording() as recording:
        copy = memory.copy(state)
    assert recording.waits == {}
    assert set(recording.copies) == {"device>host"}
    assert all(value.is_pinned() for value in copy["model"].values())
    places = {key: value.data_ptr() for key, value in copy["model"].items()}
    assert {key: value.data_ptr() for key, value in memory.copy(state)["model"].items()} == places

    run = RunPaths(tmp_path)
    with Recording() as recording, Saver(run) as saving:
        saving.save(state, True)
    assert recording.waits == {"wait event 0": 1}, "by the thread that writes, before it does"
    kept = checkpoint.load(run.last)
    assert kept is not None
    assert kept["model"].keys() == state["model"].keys()
    again = make_engine(cifar, "vgg11_bn")
    again.model.load_state_dict(kept["model"])
    again.optimizer.load_state_dict(kept["optimizer"])
    assert steps_of(again).waits == {}


# Devices


def test_auto_is_the_first_gpu_and_a_number_another_one(cifar: Dataset, tmp_path: Path) -> None:
    assert make_engine(cifar).setting.device == torch.device("cuda", 0)
    second = make_engine(cifar, on="cuda:1")
    assert {parameter.device for parameter in second.model.parameters()} == {torch.device("cuda", 1)}
    assert steps_of(second).waits == {}
    with Recording() as recording, Saver(RunPaths(tmp_path)) as saving:
        saving.save({"model": second.model.state_dict()}, False)
    assert recording.waits == {"wait event 1": 1}, "nobody touches the first GPU"
    with pytest.raises(DeviceError, match=r"'cuda:2'.*PyTorch sees 2 GPUs, from cuda:0"):
        make_engine(cifar, on="cuda:2")


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True), ("fp16", True)])
def test_float32_is_rounded_for_convolutions_and_products_alike_or_not_at_all(
    precision: str, allowed: bool, cifar: Dataset
) -> None:
    make_engine(cifar, precision=precision)
    assert torch.backends.cudnn.allow_tf32 is allowed
    assert torch.backends.cuda.matmul.allow_tf32 is allowed


def test_kernels_are_tuned_for_the_batches_of_a_long_training_alone(
    cifar: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned: list[tuple[int, bool]] = []
    real = Engine.logits

    def noted(self: Engine, network: Any, images: torch.Tensor) -> torch.Tensor:
        tuned.append((len(images), torch.backends.cudnn.benchmark))
        return real(self, network, images)

    monkeypatch.setattr(Engine, "logits", noted)
    for steps, is_tuned in ((1, True), (10**9, False)):
        monkeypatch.setattr(engine, "TUNING_STEPS", steps)
        tuned.clear()
        trained = make_engine(cifar)
        trained.batch = trained.loader.num_batches - 2
        list(loop.take_steps(trained, EagerStep(trained)))
        evaluate(trained, Stop())
        assert set(tuned) == {(128, is_tuned), (80, False), (2500, False)}
