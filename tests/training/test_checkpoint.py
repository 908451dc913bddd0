"""Checkpoints on disk."""

from __future__ import annotations

import io
import itertools
import pickle
import random
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest
import torch

from pipeline.errors import CheckpointError, DamagedError
from pipeline.home.paths import RunPaths
from pipeline.home.temporaries import remove_temporaries
from pipeline.training import checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    checkpoint.save(run, {"model": {"w": torch.arange(3)}, "step": 7})
    state = checkpoint.load(run.last)
    assert state is not None
    assert state["step"] == 7
    assert state["model"]["w"].tolist() == [0, 1, 2]


def test_no_checkpoint_is_not_an_error(tmp_path: Path) -> None:
    assert checkpoint.load(RunPaths(tmp_path).last) is None


def test_best_stays_when_last_moves_on(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    for step, is_best in ((1, True), (2, True), (3, False)):
        checkpoint.save(run, {"step": step}, is_best=is_best)
    last, best = checkpoint.load(run.last), checkpoint.load(run.best)
    assert last is not None
    assert best is not None
    assert (last["step"], best["step"]) == (3, 2)


def test_nothing_but_the_three_files_is_left(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    checkpoint.save(run, {"step": 1}, is_best=True)
    assert names(run) == ["best.pt", "last.pt"]
    checkpoint.save(run, {"step": 2}, is_best=True)
    checkpoint.save(run, {"step": 3})
    assert names(run) == ["best.pt", "last.pt", "previous.pt"]
    assert [step_of(path) for path in (run.last, run.previous, run.best)] == [3, 2, 2]


def names(run: RunPaths) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def step_of(path: Path) -> int:
    state = checkpoint.load(path)
    assert state is not None
    return int(state["step"])


SMALL = {
    "model": {"w": torch.linspace(0, 1, 40), "z": torch.zeros(300)},
    "metrics": {"a": 0.5},
    "position": {"step": 7},
}


def save_sealed(run: RunPaths) -> None:
    checkpoint.save(run, SMALL)


def save_as_before(run: RunPaths) -> None:
    """As the versions did that put no seal on a file."""
    run.checkpoints.mkdir()
    torch.save({"format": checkpoint.FORMAT, **SMALL}, run.last)


def plain(value: Any) -> Any:
    """The same content compares equal."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    return {key: plain(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("save", [save_sealed, save_as_before])
def test_a_flipped_bit_is_found_or_changes_nothing(save: Callable[[RunPaths], None], tmp_path: Path) -> None:
    """Everywhere in the file, and most of all in its table of contents: there torch takes a tensor for a folder."""
    run = RunPaths(tmp_path)
    save(run)
    content = run.last.read_bytes()
    table = zipfile.ZipFile(run.last).start_dir
    chosen = random.Random(0).sample(range(8 * len(content)), 1000) + random.Random(1).sample(
        range(8 * table, 8 * len(content)), 1000
    )
    folders = [8 * (at.start() + 38) + 4 for at in re.finditer(b"PK\x01\x02", content)]
    found = 0
    for bit in (*chosen, *folders):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        run.last.write_bytes(flipped)
        try:
            state = checkpoint.load(run.last)
        except DamagedError:
            found += 1
        else:
            assert plain(state) == plain(SMALL), f"bit {bit}"
    assert found > 500


def test_a_file_of_before_is_loaded(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    save_as_before(run)
    assert plain(checkpoint.load(run.last)) == plain(SMALL)
    assert checkpoint.saved_step(run) == 7


def test_the_seal_disturbs_no_other_reader(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    save_sealed(run)
    assert zipfile.ZipFile(run.last).comment.startswith(b"sha256 ")
    for options in ({"mmap": True}, {}):
        assert plain(torch.load(run.last, weights_only=True, **options)) == {"format": 1, **plain(SMALL)}


@pytest.mark.parametrize("size", [0, 1, 1000, -1000, -90, -1])
def test_a_file_that_is_cut_short_is_found_or_has_all_that_counts(size: int, tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    save_sealed(run)
    run.last.write_bytes(run.last.read_bytes()[:size])
    if size == -1:  # only the seal is cut
        assert plain(checkpoint.load(run.last)) == plain(SMALL)
        return
    with pytest.raises(DamagedError, match=r"last\.pt: is damaged"):
        checkpoint.load(run.last)


def flip(path: Path) -> None:
    """A bit amid a tensor, in place: under all its names."""
    with path.open("r+b") as file:
        content = file.read()
        at = content.index(b"\0\0\xc0\x7f" * 10)  # of NaNs
        file.seek(at)
        file.write(b"\1")


def state(step: int) -> dict[str, Any]:
    return {"step": step, "position": {"step": step}, "w": torch.full((100,), torch.nan)}


def save_steps(run: RunPaths, *steps: int, best: int = 0) -> None:
    for step in steps:
        checkpoint.save(run, state(step), is_best=step == best)


def test_a_damaged_checkpoint_is_followed_by_the_one_before(tmp_path: Path) -> None:
    """Also where it is the best one too, so that both names lead to the damage."""
    run, said = RunPaths(tmp_path), list[str]()
    save_steps(run, 1, 2, 3, best=3)
    assert run.last.samefile(run.best)
    flip(run.best)
    assert checkpoint.saved_step(run) == 2
    resumed = checkpoint.resume(run, log=said.append)
    assert resumed is not None
    assert resumed["step"] == 2
    assert said == [f"{run.last}: is damaged; the job goes on from the checkpoint before it, previous.pt"]
    assert step_of(run.last) == 2
    save_steps(run, 3, best=3)
    assert [step_of(path) for path in (run.last, run.previous, run.best)] == [3, 2, 3]


def test_a_damaged_checkpoint_never_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """The disk may change one while the job trains on."""
    run = RunPaths(tmp_path)
    save_steps(run, 1, 2)
    flip(run.last)
    save_steps(run, 3)
    assert [step_of(path) for path in (run.last, run.previous)] == [3, 1]
    run.last.unlink()
    run.last.symlink_to("nowhere")
    save_steps(run, 4)
    assert [step_of(path) for path in (run.last, run.previous)] == [4, 1]
    save_steps(run, 5)
    assert [step_of(path) for path in (run.last, run.previous)] == [5, 4]


def test_a_checkpoint_that_is_gone_is_followed_by_the_one_before(tmp_path: Path) -> None:
    run, said = RunPaths(tmp_path), list[str]()
    save_steps(run, 1, 2)
    run.last.unlink()
    resumed = checkpoint.resume(run, log=said.append)
    assert resumed is not None
    assert (resumed["step"], checkpoint.saved_step(run)) == (1, 1)
    assert "last.pt: is missing" in said[0]


def test_two_damaged_checkpoints_are_both_named_with_what_to_do(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    save_steps(run, 1, 2)
    flip(run.last)
    flip(run.previous)
    before = names(run)
    with pytest.raises(
        CheckpointError, match=r"last\.pt: is damaged; .*previous\.pt: is damaged; remove both and the job begins anew"
    ):
        checkpoint.resume(run, log=print)
    assert checkpoint.saved_step(run) is None
    assert names(run) == before


def test_a_first_checkpoint_that_is_damaged_is_named_with_what_to_do(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    save_steps(run, 1)
    flip(run.last)
    with pytest.raises(CheckpointError, match=r"last\.pt: is damaged; remove it and the job begins anew"):
        checkpoint.resume(run, log=print)


def test_what_another_version_has_written_is_not_replaced_by_the_one_before(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    save_steps(run, 1, 2)
    torch.save({"format": 99}, run.last)
    content = run.last.read_bytes()
    with pytest.raises(CheckpointError, match=r"last\.pt: is not a checkpoint of this version"):
        checkpoint.resume(run, log=print)
    assert run.last.read_bytes() == content


def test_a_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not cost the job its last checkpoint."""
    run = RunPaths(tmp_path)
    save_steps(run, 1, 2)

    def out_of_memory(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", out_of_memory)
        with pytest.raises(RuntimeError, match="can't allocate"):
            checkpoint.resume(run, log=print)
    assert step_of(run.last) == 2


def save_after_a_fall_back(root: Path, damage: bool) -> None:
    run = RunPaths(root)
    if damage:
        checkpoint.resume(run, log=print)
    save_steps(run, 3, best=3)


@pytest.mark.parametrize("damage", [False, True])
@pytest.mark.parametrize("fault", ["kill", "one EIO", "full disk"])
def test_whatever_happens_while_one_is_saved_there_is_one_to_go_on_from(
    fault: faults.Fault, damage: bool, tmp_path: Path
) -> None:
    roots = (tmp_path / str(number) for number in itertools.count())

    def prepare() -> tuple[Path, Any]:
        run = RunPaths(next(roots))
        run.root.mkdir()
        save_steps(run, 1, 2, best=2)
        if damage:
            flip(run.last)
        return run.root, damage

    num_struck = 0
    for root, _, outcome in faults.at_each_call(save_after_a_fall_back, fault, prepare):
        num_struck += outcome.struck
        run, expected = RunPaths(root), {1, 3} if damage else {2, 3}
        assert checkpoint.saved_step(run) in expected
        resumed = checkpoint.resume(run, log=print)
        assert resumed is not None
        assert resumed["step"] in expected
        remove_temporaries(run)
        save_steps(run, 4)
        assert step_of(run.last) == 4
        assert step_of(run.previous) in expected
        assert names(run) == ["best.pt", "last.pt", "previous.pt"]
    assert num_struck > 3


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("evil"),)  # type: ignore[return-value]


def write_evil(path: Path) -> None:
    """A pickle that would run code, in a whole checkpoint, with its seal."""
    archive = io.BytesIO()
    torch.save({"format": 1, "x": Evil()}, archive)
    checkpoint._seal(archive)
    path.write_bytes(archive.getvalue())


def test_a_checkpoint_from_a_stranger_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunPaths(tmp_path)
    run.checkpoints.mkdir()
    for write in (
        lambda: write_evil(run.last),
        lambda: torch.save({"format": 1, "x": Evil()}, run.last),
        lambda: run.last.write_bytes(pickle.dumps(Evil(), protocol=2)),
    ):
        write()
        with pytest.raises(CheckpointError):
            checkpoint.resume(run, log=print)
        assert not Path("evil").exists()


def as_torchscript(content: bytes) -> bytes:
    return rezip(content, zipfile.ZIP_STORED, {"archive/constants.pkl": pickle.dumps(Evil())})


def packed(content: bytes) -> bytes:
    return rezip(content, zipfile.ZIP_DEFLATED, {})


def twice(content: bytes) -> bytes:
    return rezip(content, zipfile.ZIP_STORED, {"archive/data.pkl": pickle.dumps(Evil(), protocol=2)})


def rezip(content: bytes, how: int, further: dict[str, bytes]) -> bytes:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(changed, "w", how) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
            for name, data in further.items():
                target.writestr(name, data)
    return changed.getvalue()


def as_tar(content: bytes) -> bytes:  # noqa: ARG001
    changed, evil = io.BytesIO(), pickle.dumps(Evil(), protocol=2)
    with tarfile.open(fileobj=changed, mode="w") as archive:
        entry = tarfile.TarInfo("storages")
        entry.size = len(evil)
        archive.addfile(entry, io.BytesIO(evil))
    return changed.getvalue() + b"\0\0"


def as_before_zip_files(content: bytes) -> bytes:  # noqa: ARG001
    changed = io.BytesIO()
    torch.save({"format": 1, "x": Evil()}, changed, _use_new_zipfile_serialization=False)
    return changed.getvalue() + b"\0\0"


@pytest.mark.parametrize("change", [as_torchscript, packed, twice, as_tar, as_before_zip_files])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_what_torch_reads_beside_our_own_files_is_refused_before_it_looks(
    change: Callable[[bytes], bytes], is_sealed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of some of these, torch says how to run what is in them."""
    monkeypatch.chdir(tmp_path)
    run = RunPaths(tmp_path)
    save_as_before(run)
    changed = io.BytesIO(change(run.last.read_bytes()))
    if is_sealed:
        checkpoint._seal(changed)
    run.last.write_bytes(changed.getvalue())
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CheckpointError, match="is not a checkpoint of this version" if is_sealed else "is damaged"):
        checkpoint.load(run.last)
    assert not Path("evil").exists()


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    run.checkpoints.mkdir()
    torch.save({"format": 99}, run.last)
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        checkpoint.load(run.last)


def test_the_step_that_is_saved_is_that_of_the_file_on_disk(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    assert checkpoint.saved_step(run) is None
    checkpoint.save(run, {"position": {"epoch": 1, "batch": 0, "step": 7}, "w": torch.zeros(1000)})
    assert checkpoint.saved_step(run) == 7
    run.last.write_bytes(run.last.read_bytes()[:1000])
    assert checkpoint.saved_step(run) is None


def test_a_folder_that_is_gone_is_not_made_again_for_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checkpoint.save(RunPaths(tmp_path / "gone"), {"step": 1})
    assert not (tmp_path / "gone").exists()
