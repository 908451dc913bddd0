"""Part A: that a GPU computes what the CPU computes, and the same each time."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from claims import Claim
from engines import engine_of
from sides import MODELS
from torch import nn

from pipeline.data.draws import EpochDraws
from pipeline.jobfile import catalog
from pipeline.jobfile.spec import Spec
from pipeline.training.engine import Engine
from pipeline.training.loop import take_steps
from pipeline.training.step import EagerStep

if TYPE_CHECKING:
    from gpu import Bench

LIMITS = {"fp32": 1e-3, "bf16": 2e-2}
NUM_IMAGES = 128


def exactness(bench: Bench) -> Iterator[Claim]:
    """Loss and gradient of each model's first batch, relative to the CPU's in float64."""
    for name in bench.models:
        for precision, limit in LIMITS.items():
            engine = engine_of(_spec(bench, name, precision=precision), bench.datasets)
            images, labels = next(engine.loader.epoch(0))
            images, labels = images[:NUM_IMAGES], labels[:NUM_IMAGES]
            exact = _loss_and_gradient(engine.model, images, labels, engine=None)
            ours = _loss_and_gradient(engine.model, images, labels, engine=engine)
            for what, found, expected in zip(("loss", "gradient"), ours, exact, strict=True):
                error = float((found - expected).norm() / expected.norm())
                at_most = None if bench.is_small else limit  # of flat digits, maxima are ties
                yield Claim(f"{name}, {precision}: error of the {what}, relative", error, at_most=at_most)


def _loss_and_gradient(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, engine: Engine | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the engine computes them, or on the CPU in float64 without one. The model stays as it is."""
    model = copy.deepcopy(model)
    if engine is None:
        model, images, labels = model.cpu().double(), images.cpu().double(), labels.cpu()
        loss = F.cross_entropy(model(images), labels)
    else:
        with engine.setting.autocast():
            loss = F.cross_entropy(engine.logits(model, images), labels)
    loss.backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return loss.detach().cpu().double(), torch.cat(gradients).cpu().double()


def augmentation(bench: Bench) -> Iterator[Claim]:
    """Each augmentation, and all of them with a loader around, gives the same bytes on both."""
    cpu, device = torch.device("cpu"), torch.device(bench.device)
    images = torch.randint(256, (1000, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name, entry in catalog.AUGMENTATIONS.items():
        options = {option: field.default for option, (_, field) in entry.options.items()}
        results = []
        for where in (cpu, device):
            draws, fill = EpochDraws((0, 0, 0), len(images), where).of(0, len(images)), torch.full((3,), 7)
            fill = fill.to(where, torch.uint8)
            results.append(entry.load()(images.to(where), draws=draws, fill=fill, **options).cpu())
        yield Claim(f"{name}: as on the CPU, byte for byte", *_same(torch.equal(*results)))

    spec = _spec(bench, "net", precision="fp32")
    engines = [engine_of(_on(spec, where), bench.datasets) for where in ("cpu", bench.device)]
    pairs = zip(*(engine.loader.epoch(1) for engine in engines), strict=True)
    same = all(torch.equal(a, b.cpu()) and torch.equal(x, y.cpu()) for (a, x), (b, y) in pairs)
    yield Claim("an epoch of batches: as on the CPU, bit for bit", *_same(same))


def determinism(bench: Bench) -> Iterator[Claim]:
    """The same weights twice, and once more where the training was stopped and taken up again."""
    steps = 10 if bench.is_small else 120
    for name in bench.models:
        spec = _spec(bench, name, precision="auto", deterministic=True)
        first, again = (_trained(spec, bench, steps) for _ in range(2))
        yield Claim(f"{name}: trained twice, deterministic: the same bits", *_same(_equal(first, again)))
        stopped = _trained(spec, bench, steps // 2)
        resumed = engine_of(spec, bench.datasets)
        resumed.load_state_dict(stopped.state_dict())
        _take(resumed, steps - steps // 2)
        yield Claim(f"{name}: stopped and taken up again: the same bits", *_same(_equal(first, resumed)))
    torch.use_deterministic_algorithms(False)


def _trained(spec: Spec, bench: Bench, steps: int) -> Engine:
    engine = engine_of(spec, bench.datasets)
    _take(engine, steps)
    return engine


def _take(engine: Engine, steps: int) -> None:
    step, taken = EagerStep(engine), 0
    while taken < steps:
        for _ in take_steps(engine, step):
            taken += 1
            if taken == steps:
                return
        engine.end_epoch()


def _equal(one: Engine, other: Engine) -> bool:
    theirs = other.model.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.model.state_dict().items())


def _same(is_same: bool) -> tuple[str, str, None, None, bool]:
    return "yes" if is_same else "no", "", None, None, is_same


def _spec(bench: Bench, name: str, **train: Any) -> Spec:
    return Spec.model_validate(bench.spec(MODELS[name], train={"epochs": 100, **train}))


def _on(spec: Spec, device: str) -> Spec:
    value = spec.model_dump(mode="json")
    value["resources"]["device"] = device
    return Spec.model_validate_json(json.dumps(value))
