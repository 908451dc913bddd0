"""The formats that a trained model is written in for other programs, and how a stranger reads each.

    safetensors     the weights alone, for a network that is built elsewhere; it takes normalised images
    onnx            the whole computation from pixels in [0, 1] to logits, for ONNX Runtime and its like
    torch-export    the same for PyTorch alone, without this program

Each says in its metadata what one must know to use it. A network of few bits is written as `integers.py` has it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import pipeline
from pipeline.errors import PipelineError
from pipeline.results import integers
from pipeline.results.classifier import Classifier, Normalised
from pipeline.results.integers import Trace

FORMAT_VERSION = 1  # of the metadata
METADATA_FILE = "metadata.json"  # of torch-export, inside the archive
OPSET = 18  # what torch's exporter writes without converting; ONNX Runtime reads it since 1.14 of 2023
OPSET_OF_INT16 = 21  # the first whose DequantizeLinear takes int16; ONNX Runtime reads it since 1.18 of 2024
MAX_ONNX_BYTES = 2**31 - 2**24  # what protobuf can hold, less the graph

Run = Callable[[torch.Tensor], torch.Tensor]
"""From images, float32 (N, C, H, W) in [0, 1], to logits, float32 (N, classes)."""


@dataclass(frozen=True)
class Loaded:
    """An exported file as a stranger has it.

    tensors: where they must be the checkpoint's, bit for bit. trace: where inputs of layers are rounded, to see how.
    """

    run: Run
    metadata: dict[str, str]
    tensors: dict[str, torch.Tensor] | None = None
    trace: Callable[[torch.Tensor], Trace] | None = None


@dataclass(frozen=True)
class Format:
    suffix: str
    packages: tuple[str, ...]  # of the extra `export`
    to_bytes: Callable[[Classifier], bytes]
    load: Callable[[Path, Classifier], Loaded]


def facts(classifier: Classifier) -> dict[str, Any]:
    """Returns what one must know to use the model, as JSON has it."""
    expected = classifier.input
    return {
        "format_version": FORMAT_VERSION,
        "written_by": f"pipeline {pipeline.__version__}",
        "job_id": classifier.job_id,
        "checkpoint": classifier.checkpoint,
        "test_accuracy": classifier.test_accuracy,
        "model": classifier.spec.model.model_dump(mode="json"),
        "classes": list(expected.classes),
        "channels": expected.channels,
        "image_size": expected.image_size,
        "mean": list(expected.mean),
        "std": list(expected.std),
        **integers.facts(classifier),
    }


def as_text(facts: dict[str, Any]) -> dict[str, str]:
    """Returns the facts for formats that keep texts only: what is none becomes JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the libraries' warnings to their own developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # by torch.export.load, until 2.11
        yield


def require(format_: str) -> None:
    for package in FORMATS[format_].packages:
        try:
            with quiet():
                importlib.import_module(package)
        except ImportError as error:
            raise PipelineError(
                f"the format {format_} needs the package {package} ({error}): pip install 'pipeline[export]'"
            ) from None


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


# safetensors


def _safetensors_bytes(classifier: Classifier) -> bytes:
    import safetensors.torch

    # Cloned, as tensors that share their memory are refused.
    tensors = {name: value.clone().contiguous() for name, value in integers.tensors(classifier).items()}
    return safetensors.torch.save(tensors, metadata=as_text(facts(classifier)))


def _load_safetensors(path: Path, classifier: Classifier) -> Loaded:
    import safetensors.torch

    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        written = dict(file.metadata())
    layers = json.loads(written.get("quantization", "{}")).get("layers", {})
    section = classifier.spec.model.model_copy(update={"quantize": None})  # as one has it who knows the file alone
    fresh = classifier.input.untrained(classifier.spec.model_copy(update={"model": section}))
    fresh.load_state_dict(integers.decoded(tensors, layers))
    integers.round_inputs(fresh, tensors, layers)
    model = Normalised(fresh, classifier.input).eval()
    return Loaded(model, written, tensors, integers.tracing(model))


# What torch.export traced


def _program(classifier: Classifier, *, for_onnx: bool = False) -> torch.export.ExportedProgram:
    expected = classifier.input
    model = Normalised(integers.network(classifier, for_onnx=for_onnx), expected).eval()
    # Of two, as torch.export takes a batch of one for fixed.
    images = torch.zeros(2, expected.channels, expected.image_size, expected.image_size)
    try:
        program = torch.export.export(model, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    except Exception as error:  # it runs the network's own code, which may raise anything
        raise PipelineError(
            f"torch.export cannot follow the code of model {classifier.spec.model.name!r} "
            f"(--format safetensors works without that): {first_line(error)}"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names this machine's files
    return program


def _torch_export_bytes(classifier: Classifier) -> bytes:
    content = io.BytesIO()
    torch.export.save(_program(classifier), content, extra_files={METADATA_FILE: json.dumps(facts(classifier))})
    return content.getvalue()


def _load_torch_export(path: Path, classifier: Classifier) -> Loaded:
    extra = {METADATA_FILE: ""}
    with path.open("rb") as file, quiet():  # by its name it would have to end in .pt2 already
        model = torch.export.load(file, extra_files=extra).module()
    same = Normalised(integers.network(classifier), classifier.input).eval()
    if rounding := integers.tracing(same):  # a graph does not say what it rounds; what was traced does, sum for sum
        same.load_state_dict(model.state_dict(), assign=True)
    trace = rounding and (lambda images: Trace(model(images), rounding(images).rounded))
    return Loaded(model, as_text(json.loads(extra[METADATA_FILE])), trace=trace)


# ONNX


def _onnx_bytes(classifier: Classifier) -> bytes:
    import onnx

    traced = _program(classifier, for_onnx=True)
    size = sum(value.nbytes for value in traced.state_dict.values())
    if size > MAX_ONNX_BYTES:
        raise PipelineError(
            f"an ONNX file holds up to 2 GB, and this model has {size / 1e9:.1f} GB; use safetensors or torch-export"
        )
    program = torch.onnx.export(
        traced,
        dynamo=True,
        verbose=False,
        opset_version=OPSET_OF_INT16 if any(each.dtype == torch.int16 for each in traced.buffers()) else OPSET,
        input_names=["images"],
        output_names=["logits"],
        external_data=False,
    )
    assert program is not None  # with dynamo=True
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's notes about our classes, a third of a small file
    onnx.helper.set_model_props(model, as_text(facts(classifier)))
    content: bytes = model.SerializeToString()
    return content


def _load_onnx(path: Path, classifier: Classifier) -> Loaded:
    import onnx

    del classifier
    onnx.checker.check_model(path, full_check=True)
    session = _session(path)

    def run(images: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return Loaded(run, dict(session.get_modelmeta().custom_metadata_map), trace=_trace_of_onnx(onnx.load(path)))


def _trace_of_onnx(model: Any) -> Callable[[torch.Tensor], Trace] | None:
    """Has a model give what it rounds, as outputs of their own; None where it rounds nothing.

    It is computed as it is written. Left to itself, ONNX Runtime fuses a convolution with the roundings around it into
    one of integers, whose bias is then an integer too: that is close, but not what the file says.
    """
    import onnx

    levels = {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.output}
    floats = [node.output[0] for node in model.graph.node if levels.intersection(node.input)]
    if not floats:
        return None
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in floats)
    session = _session(model.SerializeToString(), is_optimized=False)

    def trace(images: torch.Tensor) -> Trace:
        logits, *rounded = session.run(["logits", *floats], {"images": images.numpy()})
        return Trace(torch.from_numpy(logits), [torch.from_numpy(each) for each in rounded])

    return trace


def _session(model: Path | bytes, *, is_optimized: bool = True) -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    if not is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1  # else it pins threads, and complains where a container does not let it
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


FORMATS = {
    "safetensors": Format(".safetensors", ("safetensors",), _safetensors_bytes, _load_safetensors),
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), _onnx_bytes, _load_onnx),
    "torch-export": Format(".pt2", (), _torch_export_bytes, _load_torch_export),
}
