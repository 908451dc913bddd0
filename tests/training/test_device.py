"""What is decided where a job file says auto."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from pipeline.errors import DeviceError
from pipeline.jobfile.spec import Spec
from pipeline.stop import LEASED_GPU
from pipeline.training import device

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def make_spec(device_name: str = "auto", batch_size: int = 128, **train: object) -> Spec:
    value = {
        "name": "test",
        "model": {"name": "cnn_bn"},
        "data": {"name": "digits", "batch_size": batch_size},
        "train": train,
        "resources": {"device": device_name},
    }
    return Spec.model_validate_json(json.dumps(value))


@no_gpu
def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert device.choose(make_spec()).device == torch.device("cpu")


@needs_gpu
def test_with_a_gpu_auto_is_the_first_one() -> None:
    assert device.choose(make_spec()).device == torch.device("cuda", 0)


@no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_named_with_what_to_write(name: str) -> None:
    with pytest.raises(DeviceError, match=f"'{name}'.*no GPU.*auto or cpu"):
        device.choose(make_spec(name))


@no_gpu
def test_a_gpu_that_was_leased_and_is_not_seen_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` does not mean the CPU where a worker counts on a GPU: the job would take weeks, and nobody be told."""
    monkeypatch.setenv(LEASED_GPU, "GPU-5d1c2a60")
    with pytest.raises(DeviceError, match=r"was given GPU-5d1c2a60, but PyTorch sees no GPU: .*resources\.device: cpu"):
        device.choose(make_spec())
    assert device.choose(make_spec("cpu")).device == torch.device("cpu")


def test_what_the_job_file_says_is_done() -> None:
    setting = device.choose(make_spec("cpu", precision="fp16", channels_last=False, fused=False, compile=True))
    assert setting == device.Setting(torch.device("cpu"), torch.float16, torch.contiguous_format, False, True, False)


def test_auto_precision_is_fp32_for_small_batches_on_a_cpu() -> None:
    assert device.choose(make_spec("cpu", batch_size=4)).dtype is torch.float32


def test_auto_precision_is_bf16_only_where_the_cpu_is_fast_at_it() -> None:
    capabilities = device._cpu_capabilities()
    fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    assert (device.choose(make_spec("cpu")).dtype is torch.bfloat16) == fast


def test_the_manifest_gets_words_and_numbers() -> None:
    described = device.choose(make_spec("cpu")).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["device"] == "cpu"


def test_determinism_is_that_of_pytorch_s_own_switch() -> None:
    """In a process of its own, as it is a setting of the process, and a compiler that is loaded before is not told."""
    code = """
import torch
from pipeline.training.device import make_deterministic

make_deterministic()
assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
import torch._inductor.config as config

assert config.deterministic
"""
    subprocess.run([sys.executable, "-c", code], check=True)
