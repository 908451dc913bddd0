"""The first command: what is installed, from where, what is said meanwhile, and what comes of a failure.

A stand-in for Python, pip and uv notes what it is called with: PyTorch's own index cannot be reached from everywhere.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest
from checkouts import ROOT, Checkout
from quick import wait_until

LOCK = (ROOT / "requirements.lock").read_text()
EDITABLE = "python -m pip install --quiet --no-build-isolation --no-deps --editable ."
PLAIN = [
    "python3 -m venv --clear .venv",
    "python -m pip install --quiet --require-hashes --requirement requirements.lock",
    EDITABLE,
]
STAND_IN = """
case "$*" in
  "-m venv --clear "*) mkdir -p "$4/bin" "$4/lib"; for name in python pip uv; do cp "$0" "$4/bin/$name"; done;;
  *"--requirement "*) for last; do :; done; cp "$last" asked.lock
    if test -e waits; then touch waiting; while test -e waits; do sleep 0.05; done; fi
    if test -e fails; then echo "ERROR: no room for it" >&2; exit 1; fi;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout.make(tmp_path)
    made.has_program(made.programs / "python3", made.notes('"$(basename "$0")"', STAND_IN))
    made.has_program(made.programs / "nvidia-smi", "exit 1")
    return made


def install(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess[str]:
    return checkout.run(".venv/.installed", *arguments)


def commands(checkout: Checkout) -> list[str]:
    """But for the question how old Python is."""
    return [" ".join(words) for words in checkout.calls() if words[1] != "-c"]


def pins(lock: str) -> list[str]:
    return re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE)


def test_by_default_the_whole_lock_is_installed_with_hashes(checkout: Checkout) -> None:
    assert install(checkout).returncode == 0
    assert commands(checkout) == PLAIN
    assert (checkout.venv / ".torch").read_text() == "cuda\n"
    assert not (checkout.venv / "tmp").exists()
    assert install(checkout).returncode == 0
    assert commands(checkout) == PLAIN, "once"


def test_torch_cpu_takes_two_packages_from_pytorchs_index_and_the_rest_from_the_lock(checkout: Checkout) -> None:
    """No package of CUDA's is asked for; each of the others with its hashes."""
    assert install(checkout, "TORCH=cpu").returncode == 0
    made, uv, torch, others, editable = commands(checkout)
    assert made == PLAIN[0]
    assert re.fullmatch(r"python -m pip install --quiet uv==[\d.]+", uv)
    version = {name: re.findall(rf"^{name}==(\S+)", LOCK, re.MULTILINE)[0] for name in ("torch", "torchvision")}
    asked = f"torch=={version['torch']} torchvision=={version['torchvision']}"
    assert torch == f"uv pip install --quiet --python .venv/bin/python --no-deps --torch-backend cpu {asked}"
    assert re.fullmatch(r"python -m pip install --quiet --no-deps --require-hashes --requirement \S+", others)
    assert editable == EDITABLE

    left = (checkout.folder / "asked.lock").read_text()
    gone = set(pins(LOCK)) - set(pins(left))
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-toolkit"} <= gone
    assert [name for name in gone if not re.match("torch$|torchvision$|triton$|nvidia-|cuda-", name)] == []
    assert re.search("^(torch|torchvision|triton|nvidia.*|cuda.*)==", left, re.MULTILINE) is None
    entries = re.split(r"^(?=[a-z])", left, flags=re.MULTILINE)
    assert [entry for entry in entries if entry.strip() and "--hash=sha256:" not in entry] == []
    assert set(left.splitlines()) <= set(LOCK.splitlines())


def test_another_torch_is_refused_by_its_name(checkout: Checkout) -> None:
    done = install(checkout, "TORCH=rocm")
    assert done.returncode != 0
    assert "TORCH is cpu or cuda, not 'rocm'" in done.stderr
    assert checkout.calls() == []


def test_an_environment_with_the_other_pytorch_stays_as_it_is_and_the_way_to_change_it_is_named(
    checkout: Checkout,
) -> None:
    install(checkout)
    done = install(checkout, "TORCH=cpu")
    assert done.returncode != 0
    assert ".venv has another PyTorch than TORCH=cpu; make clean, then this again" in done.stderr
    assert commands(checkout) == PLAIN
    assert checkout.run("clean", ".venv/.installed", "TORCH=cpu").returncode == 0
    assert (checkout.venv / ".torch").read_text() == "cpu\n"
    assert "uv pip install" in commands(checkout)[-3]


def test_an_environment_is_brought_up_to_date_as_what_it_is(checkout: Checkout) -> None:
    """After a change of the lock, with TORCH=cpu given once."""
    install(checkout, "TORCH=cpu")
    first = commands(checkout)
    os.utime(checkout.venv / ".installed", (0, 0))
    assert install(checkout).returncode == 0
    assert commands(checkout)[len(first) :] == first[1:], "in the environment that is there"


@pytest.mark.parametrize(("torch", "has_gpu", "is_said"), [("", False, True), ("", True, False), ("cpu", False, False)])
def test_the_small_way_is_named_before_the_large_one_begins_where_no_gpu_is(
    checkout: Checkout, torch: str, has_gpu: bool, is_said: bool
) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is an NVIDIA driver")
    if not has_gpu:
        (checkout.programs / "nvidia-smi").unlink()
    said = install(checkout, f"TORCH={torch}").stderr
    assert ("with TORCH=cpu, as in make demo TORCH=cpu, it is some 2 GB" in said) == is_said


def test_a_failure_shows_pips_own_words_and_the_same_command_goes_on(checkout: Checkout) -> None:
    (checkout.folder / "fails").touch()
    done = install(checkout)
    assert done.returncode != 0
    assert done.stderr.splitlines()[1:3] == [
        "ERROR: no room for it",
        "the installation is not complete; the same command goes on with it",
    ]
    assert not (checkout.venv / ".installed").exists()
    assert not (checkout.venv / "tmp").exists()
    (checkout.folder / "fails").unlink()
    assert install(checkout).returncode == 0
    assert commands(checkout) == [*PLAIN[:2], *PLAIN[1:]]


def test_a_failure_of_one_kind_is_followed_by_the_other_from_the_beginning(checkout: Checkout) -> None:
    (checkout.folder / "fails").touch()
    install(checkout)
    (checkout.folder / "fails").unlink()
    assert install(checkout, "TORCH=cpu").returncode == 0
    assert commands(checkout)[2] == PLAIN[0]


def test_what_a_killed_pip_has_half_installed_is_installed_again(checkout: Checkout) -> None:
    install(checkout)
    half, whole = (
        checkout.venv / "lib" / "python3.11" / "site-packages" / name for name in ("a.dist-info", "b.dist-info")
    )
    for folder in (half, whole):
        folder.mkdir(parents=True)
        (folder / "METADATA").touch()
    (whole / "RECORD").touch()
    (checkout.venv / ".installed").unlink()
    install(checkout)
    assert not half.exists()
    assert whole.exists()


def test_ctrl_c_leaves_no_process_and_no_download_and_the_same_command_goes_on(checkout: Checkout) -> None:
    (checkout.folder / "waits").touch()
    command = ["make", "--no-print-directory", ".venv/.installed"]
    options = {key: value for key, value in checkout.options().items() if key in ("env", "text")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = subprocess.Popen(command, cwd=checkout.folder, start_new_session=True, **pipes, **options)
    wait_until((checkout.folder / "waiting").exists, "pip to begin")
    os.killpg(started.pid, signal.SIGINT)
    said = started.communicate(timeout=60)[1]  # which ends when nobody has the pipe any more
    assert started.returncode != 0
    assert "the installation is not complete; the same command goes on with it" in said
    assert not (checkout.venv / "tmp").exists()
    assert not (checkout.venv / ".installed").exists()
    (checkout.folder / "waits").unlink()
    assert install(checkout).returncode == 0


def test_on_a_terminal_one_line_tells_how_far_it_is_and_goes_away(checkout: Checkout) -> None:
    (checkout.folder / "waits").touch()
    ours, theirs = pty.openpty()
    command = ["make", "--no-print-directory", ".venv/.installed"]
    env = {**checkout.options()["env"], "TERM": "xterm"}
    said = ""

    def has_said(pattern: str) -> bool:
        nonlocal said
        with contextlib.suppress(OSError):  # nobody has the other end any more
            said += os.read(ours, 65536).decode()
        return re.search(pattern, said) is not None

    with subprocess.Popen(command, cwd=checkout.folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as started:
        os.close(theirs)
        wait_until(lambda: has_said(r"\r\x1b\[Kdownloading: 0\.0 GB"), "the first line")
        with (checkout.venv / "lib" / "package").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 200_000_000)
        wait_until(lambda: has_said(r"\r\x1b\[Kinstalling: 0\.2 of some 6\.5 GB"), "the next")
        (checkout.folder / "fails").touch()
        (checkout.folder / "waits").unlink()
        wait_until(lambda: has_said(r"\x1b\[KERROR: no room for it\r\n"), "pip's error, on a line of its own")
        wait_until(lambda: has_said("is not complete"), "the end")
    os.close(ours)
    assert started.returncode != 0
    assert re.search(r"GB\r\n", said.partition("once)")[2].partition("2 GB")[2]) is None, "it is written over"


def test_without_a_terminal_no_line_is_written_over(checkout: Checkout) -> None:
    done = install(checkout)
    assert "\r" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
