"""A trained model as a file for other programs, compared with the checkpoint before it gets its name.

A file is written under a temporary name in the folder where it is to be, loaded back as a stranger would, and run on
sample images. It is renamed if it answers as the checkpoint does, and else removed.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from pipeline.errors import PipelineError, UsageError
from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.models.activation_quantizers import ActivationQuantizer
from pipeline.models.quantizers import Grid
from pipeline.results import integers, output_file
from pipeline.results.classifier import Classifier
from pipeline.results.model_formats import FORMATS, as_text, facts, first_line, quiet, require

TOLERANCE = 1e-4
"""How far a logit may be off, as a share of the largest one.

float32 carries seven digits. Another order of the same sums costs the last one or two of them over twenty layers (3e-7
to 3e-6 was seen); a batch norm with its epsilon wrong, or a normalisation left out, is beyond this by far.
"""

OFF_LEVEL = 1e-3  # of a step: how far from a level a value may be that is on it

BATCHES = (1, 3, 4)  # images a time, as the size of a batch must be free


def destination(run: RunPaths, format_: str, out: Path | None) -> Path:
    """Returns where the file is to be, by default in the run. Raises UsageError where no such file can be."""
    suffix = FORMATS[format_].suffix
    out = out or run.root / f"model{suffix}"
    if out.suffix != suffix and not out.is_dir():  # torch.export.load wants it so; and nobody overwrites a checkpoint
        raise UsageError(f"{out}: a file of the format {format_} has a name that ends in {suffix}")
    output_file.check(out, example=out / f"model{suffix}")
    return out


def export(classifier: Classifier, format_: str, path: Path) -> str:
    """Writes the file and says what was checked. A link is followed.

    Raises PipelineError, and leaves what was at `path`, where it cannot be written or does not answer as the
    checkpoint does.
    """
    kind, target = FORMATS[format_], output_file.follow(path)
    require(format_)
    with quiet():
        content = kind.to_bytes(classifier)
    with output_file.saying_what_fails(path):
        temporary = durable.write_temporary(target.parent, target.name, lambda file: file.write(content))
    try:
        checked = check(temporary, format_, classifier)
        with output_file.saying_what_fails(path):
            temporary.replace(target)
            durable.fsync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return checked


def check(path: Path, format_: str, classifier: Classifier) -> str:
    """Compares what a file computes with what the checkpoint does, and says how close it is. Raises PipelineError."""
    batches = sample_images(classifier.input.channels, classifier.input.image_size)
    expected = torch.cat([classifier.logits(images) for images in batches])
    try:
        with quiet(), torch.no_grad():
            loaded = FORMATS[format_].load(path, classifier)
            found = torch.cat([loaded.run(images) for images in batches])
            traced = [loaded.trace(images) for images in batches] if loaded.trace else []
    except Exception as error:  # four libraries read files; whatever they raise, this one is no good
        raise _unfit(format_, f"it cannot be loaded back: {first_line(error)}") from error
    if not expected.isfinite().all():
        raise PipelineError(f"{classifier.job_id}: not exported: the model's answers are not finite numbers")
    if loaded.metadata != as_text(facts(classifier)):
        raise _unfit(format_, "its metadata is not what was written")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise _unfit(format_, f"its answers are {found.dtype} {list(found.shape)}, not {list(expected.shape)}")
    alike = ""
    if loaded.tensors is not None:
        alike = _check_tensors(format_, loaded.tensors, integers.tensors(classifier))
    if torch.equal(found, expected):
        return f"{alike}the answers to {len(expected)} sample images, bit for bit the same"
    if loaded.tensors is not None and classifier.spec.model.quantize is None:
        raise _unfit(format_, "a network with its weights answers otherwise than the checkpoint's")
    if not traced:
        return alike + _check_closely(format_, found, expected)
    followed = torch.cat(
        [following(classifier, format_, images, each.rounded) for images, each in zip(batches, traced, strict=True)]
    )
    close = _check_closely(format_, torch.cat([each.logits for each in traced]), followed)
    difference = float((found - expected).abs().max())
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    plain = f"else by {difference:.1g}, with {same} of {len(expected)} classes the same"
    return f"{alike}{close}, where both round up and down alike; {plain}"


def sample_images(channels: int, image_size: int) -> list[torch.Tensor]:
    """Makes random images, the same each time: from plain ones with coarse patches to pure noise.

    Noise alone looks all the same to a network that pools it.
    """
    generator = torch.Generator().manual_seed(0)
    count = sum(BATCHES)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    noise = torch.rand(count, channels, image_size, image_size, generator=generator)
    share = torch.linspace(0, 1, count).view(-1, 1, 1, 1)
    images = torch.lerp(F.interpolate(coarse, size=(image_size, image_size)), noise, share)
    return list(torch.split(images, list(BATCHES)))


def _unfit(format_: str, reason: str) -> PipelineError:
    return PipelineError(f"the {format_} file was written, and then failed its check, so it was removed: {reason}")


def following(classifier: Classifier, format_: str, images: torch.Tensor, rounded: list[torch.Tensor]) -> torch.Tensor:
    """Returns the checkpoint's logits where each layer's input is rounded up or down as the file rounded it.

    The last bit of a sum decides now and then which level a value gets. A level is a large step, which moves others
    over their edges, so that logits of few bits cannot be compared closely. Those that were rounded alike can be, and
    between one rounding and the next, float32 is all that differs.

    rounded: what the file rounded inputs of layers to, in any order. Raises PipelineError where a layer's input is not
    among them, each value on its level or, at an edge between two levels, on the other one.
    """

    def follow(quantizer: ActivationQuantizer, given: tuple[torch.Tensor], own: torch.Tensor) -> torch.Tensor | None:
        grid = integers.input_grid(quantizer)
        if grid is None:
            return None
        for values in rounded:
            if values.shape == own.shape and _is_rounding(values, given[0], own, grid):
                return values
        raise _unfit(format_, "it rounds the input of a layer to other values than the checkpoint does")

    quantizers = [module for module in classifier.network.modules() if isinstance(module, ActivationQuantizer)]
    hooks = [quantizer.register_forward_hook(follow) for quantizer in quantizers]
    try:
        return classifier.logits(images)
    finally:
        for hook in hooks:
            hook.remove()


def _is_rounding(values: torch.Tensor, x: torch.Tensor, own: torch.Tensor, grid: Grid) -> bool:
    """Whether these are on the grid's levels, and no further from x than half a step and what float32 may be off."""
    steps = (values - own) / grid.scale
    inside = x.clamp((grid.low - grid.zero_point) * grid.scale, (grid.high - grid.zero_point) * grid.scale)
    near = grid.scale / 2 + TOLERANCE * x.abs().max()
    return bool(((steps - steps.round()).abs() < OFF_LEVEL).all() and ((values - inside).abs() <= near).all())


def _check_tensors(format_: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> str:
    if found.keys() != expected.keys():
        raise _unfit(format_, "it has not the same weights")
    for name, value in expected.items():
        if found[name].dtype != value.dtype or not torch.equal(found[name], value):
            raise _unfit(format_, f"{name} is not what the checkpoint has")
    return f"all {len(expected)} tensors, and "


def _check_closely(format_: str, found: torch.Tensor, expected: torch.Tensor) -> str:
    largest = float(expected.abs().max())
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * largest:  # nor where it is NaN
        raise _unfit(
            format_, f"its logits differ from the checkpoint's by {difference:.2g}, where the largest is {largest:.3g}"
        )
    if not torch.equal(found.argmax(1), expected.argmax(1)):
        raise _unfit(format_, "it takes a sample image for another class than the checkpoint does")
    close = (
        f"logits up to {largest:.3g} that differ by {difference:.1g} at most" if difference else "the very same logits"
    )
    return f"on {len(expected)} sample images the same classes, and {close}"
