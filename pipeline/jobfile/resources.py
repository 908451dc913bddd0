"""The `resources` section: where a job runs, what it may take, how often it is tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pipeline.jobfile.entries import FieldConflict
from pipeline.jobfile.fields import Duration, Size, TextFormat, field
from pipeline.jobfile.sections import Section

Device = Annotated[str, TextFormat(r"auto|cpu|cuda(:[0-9]{1,2})?", "is not a device; write auto, cpu, cuda or cuda:N")]
OneWord = Annotated[str, TextFormat(r"""[^\s\-'"\\][^\s'"\\]{0,999}""", "is not one word without quotes")]


class Slurm(Section):
    """Handed to `sbatch` as they are; what is left out is Slurm's own default."""

    partition: OneWord | None = field(None, description="Or several, as gpu,long.")
    account: OneWord | None = field(None, description="Whom the time is charged to.")
    qos: OneWord | None = field(None, description="Quality of service.")
    constraint: OneWord | None = field(None, description="Features of the nodes, as a100|h100.")
    time: Duration | None = field(
        None,
        description="Slurm's limit for one attempt. One that is not done by then saves itself before, and goes on in "
        "a new one.",
    )
    container: OneWord | None = field(
        None, description="Image that attempts run in, with this program in it: a path, or docker://..."
    )
    container_runtime: Literal["apptainer", "pyxis"] = field("apptainer", description="What starts the image.")


class OpenResources(Section):
    """What a job may leave open, for the settings of a home to say, and what those leave open, for the cluster."""

    timeout: Duration | None = field(None, description="Longest wall time of one attempt, as 90s, 5m, 1h30m, 2d.")
    memory: Size | None = field(
        None, description="Most memory that the job may take, as 512MB, 8GB, 8GiB; one that takes more is ended."
    )
    gpus: int | None = field(
        None, ge=0, le=1, description="GPUs that a cluster is asked for; default: 1 where device is cuda, else none."
    )
    cpus: int | None = field(
        None, ge=1, le=1024, description="Processors that a cluster is asked for; default: the cluster's."
    )
    slurm: Slurm = field({}, description="For a worker that hands jobs to Slurm; others take no notice.")


class Resources(OpenResources):
    device: Device = field("auto", description="auto, cpu, cuda or cuda:N; auto: a GPU where there is one.")
    retries: int = field(
        2, ge=0, le=100, description="How often the job is started again after an attempt that `retry_on` names."
    )
    retry_on: tuple[Literal["lost", "failed", "timed_out"], ...] = field(
        ("lost",),
        max_length=3,
        description="Ends of an attempt after which it is tried again; lost: its worker or process was killed.",
    )
    priority: int = field(0, ge=-1000, le=1000, description="Higher runs first; equals run in order of submission.")

    @property
    def num_gpus(self) -> int:
        """That a cluster is asked for."""
        return self.gpus if self.gpus is not None else int(self.device.startswith("cuda"))

    def conflicts(self, at: str) -> Iterator[FieldConflict]:
        if (self.device == "cpu" and self.gpus) or (self.device.startswith("cuda") and self.gpus == 0):
            message = f"{self.gpus} does not go with device: {self.device}; leave gpus out, or set device: auto"
            yield FieldConflict(f"{at}.gpus", message, (f"{at}.device", f"{at}.gpus"))

    def over(self, defaults: OpenResources) -> Resources:
        """These, and the defaults where they leave something open."""
        found = {name: value for name, value in vars(defaults).items() if getattr(self, name) is None}
        if self.device != "auto":
            found.pop("gpus", None)
        said = {name: value for name, value in vars(self.slurm).items() if value != Slurm.model_fields[name].default}
        return self.model_copy(update={**found, "slurm": defaults.slurm.model_copy(update=said)})
