"""The `search` section of a job file, which makes it a sweep: many jobs that differ in the fields of its space.

Which values a trial gets is decided by Optuna (`pipeline/search/`); what may be written is decided here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pipeline import wording
from pipeline.jobfile import yamltree
from pipeline.jobfile.entries import FieldConflict
from pipeline.jobfile.fields import Bounds, field
from pipeline.jobfile.number_patterns import END
from pipeline.jobfile.schema_parts import JsonSchema, when
from pipeline.jobfile.search_rules import SEARCH_RULES
from pipeline.jobfile.sections import Section

Metric = Literal[
    "val/accuracy",
    "val/loss",
    "val/top5_accuracy",
    "test/accuracy",
    "test/loss",
    "test/top5_accuracy",
    "train/epoch_accuracy",
    "train/epoch_loss",
    "train/images_per_second",
    "train/device_memory_mib",
]
METRICS: tuple[str, ...] = get_args(Metric)
"""The tags of what is known of each epoch, and so can be searched for."""
DEFAULT_TRIALS = 20
MAX_TRIALS = 10_000
MAX_CHOICES = 1_000
MAX_FIELDS = 50
MOST = 1e300  # either way
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
NOT_SEARCHED = ("name", "description", "after", "search", "resources")
_RANGE = ("from", "to", "step", "log")


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included; by equal factors rather than equal steps with `log`."""

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Tells whether it was written in whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def plain(self) -> dict[str, Any]:
        """As it stands in a job file."""
        step = {} if self.step is None else {"step": self.step}
        return {"from": self.low, "to": self.high, **step, **({"log": True} if self.log else {})}

    def points(self) -> list[int | float] | None:
        """Returns all values, or None where there is no step or are too many."""
        step = self.step or (1 if self.is_whole else None)
        if step is None or (count := math.floor((self.high - self.low) / step + 1e-9) + 1) > MAX_TRIALS:
            return None
        return [self.low + index * step for index in range(count)]


Choices = tuple[Any, ...]
Values = Range | Choices
"""What a field of the space may be: any value, as YAML has it, of a list; or a range of numbers."""


class Space(Mapping[str, Values]):
    """The fields that are searched, as `train.optimizer.lr`, and the values of each."""

    def __init__(self, fields: Mapping[str, Values]) -> None:
        self._fields = dict(fields)

    def __getitem__(self, key: str) -> Values:
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __hash__(self) -> int:
        return hash(json.dumps(self.plain()))

    def plain(self) -> dict[str, Any]:
        """As it stands in a job file."""
        return {key: v.plain() if isinstance(v, Range) else list(v) for key, v in self.items()}

    def grid(self) -> list[list[Any]] | None:
        """Returns all values of each field, or None where one of them has no step or too many."""
        axes = [values.points() if isinstance(values, Range) else list(values) for values in self.values()]
        return None if None in axes else [axis for axis in axes if axis is not None]


class _SpaceKind:
    """Annotates the field `space`: a mapping of fields to lists of choices, or ranges."""

    def convert(self, value: object) -> Values:
        if isinstance(value, list):
            return _choices(value)
        if isinstance(value, dict):
            return _range(value)
        raise _wrong("should be a list of choices, as [0.1, 0.01], or a range, as {from: 1e-3, to: 1, log: true}")

    def check_key(self, key: str) -> str:
        top = key.partition(".")[0]
        if KEY.fullmatch(key) is None or key.endswith(".") or top in NOT_SEARCHED:
            hint = "" if top in NOT_SEARCHED else ", as train.optimizer.lr"
            raise _wrong(f"is no field that can be searched{hint}")
        return key

    def whole(self, fields: dict[str, Values]) -> Space:
        for key in fields:
            if outer := next((other for other in fields if key.startswith(f"{other}.")), None):
                raise _wrong(f"has {key}, which lies in {outer}, that is searched too; write it in its choices")
        return Space(fields)

    def schema(self, of_type: CoreSchema) -> CoreSchema:  # noqa: ARG002
        keys = core_schema.no_info_after_validator_function(self.check_key, core_schema.str_schema())
        values = core_schema.no_info_plain_validator_function(self.convert)
        fields = core_schema.dict_schema(keys, values, min_length=1, max_length=MAX_FIELDS)
        return core_schema.no_info_after_validator_function(self.whole, fields)

    def json_schema(self, of_type: JsonSchema) -> JsonSchema:  # noqa: ARG002
        number = {"maximum": MOST, "minimum": -MOST, "type": "number"}
        spread = {
            "additionalProperties": False,
            "properties": {
                "from": {**number, "description": "The least value."},
                "to": {**number, "description": "The largest value."},
                "step": {
                    "description": "Between two values; of a grid, one is needed.",
                    "exclusiveMinimum": 0,
                    "maximum": MOST,
                    "type": "number",
                },
                "log": {"description": "By equal factors and not by equal steps.", "type": "boolean"},
            },
            **when({"log": {"const": True}}, {"from": {"exclusiveMinimum": 0}, "step": False}),
            "required": ["from", "to"],
            "type": "object",
        }
        choices = {"items": {}, "maxItems": MAX_CHOICES, "minItems": 1, "type": "array", "uniqueItems": True}
        return {
            "additionalProperties": {"anyOf": [choices, spread]},
            "maxProperties": MAX_FIELDS,
            "minProperties": 1,
            "propertyNames": {
                "maxLength": yamltree.MAX_KEY,
                "pattern": rf"^(?!({'|'.join(NOT_SEARCHED)})(\.|$)){KEY.pattern}{END}",
                "patternErrorMessage": "It is no field that can be searched; write it as train.optimizer.lr",
            },
            "type": "object",
        }


def _wrong(complaint: str) -> PydanticCustomError:
    return PydanticCustomError("format", "{complaint}", {"complaint": complaint})


def _choices(values: list[Any]) -> Choices:
    if not values or len(values) > MAX_CHOICES:
        raise _wrong(f"should have from 1 to {MAX_CHOICES:,} choices")
    texts = [json.dumps(float(value) if type(value) is int else value) for value in values]  # 1.0 is 1
    if len(set(texts)) < len(texts):
        twice = next(value for value, text in zip(values, texts, strict=True) if texts.count(text) > 1)
        raise _wrong(f"has {json.dumps(twice)} twice")
    return tuple(values)


def _range(value: dict[str, Any]) -> Range:
    for key in value:
        if key not in _RANGE:
            if isinstance(value[key], (dict, list)):
                raise _wrong(f"has no such field as {key!r}; fields are named with dots, as train.optimizer.lr")
            free = [name for name in _RANGE if name not in value]
            raise _wrong(f"has no such field as {key!r}{wording.nearest(key, _RANGE, among=free)}")
    missing = [key for key in ("from", "to") if key not in value]
    if missing:
        raise _wrong(f"lacks {' and '.join(missing)}: a range is {{from: 1e-3, to: 1}}")
    low, high, step, log = value["from"], value["to"], value.get("step"), value.get("log", False)
    for key in ("from", "to", "step"):
        if key in value and (isinstance(value[key], bool) or not isinstance(value[key], (int, float))):
            raise _wrong(f"has {wording.short(value[key])} as {key}, which should be a number")
    if not isinstance(log, bool):
        raise _wrong("has a log that should be true or false")
    if not all(math.isfinite(number) and abs(number) <= MOST for number in (low, high, step or 0)):
        raise _wrong("should be of finite numbers")
    if not low < high:
        raise _wrong(f"goes from {low} to {high}; from should be below to")
    if step is not None and not 0 < step <= high - low:
        raise _wrong(f"has a step of {step}, which should be above 0 and at most {high - low}")
    if log and low <= 0:
        raise _wrong(f"is logarithmic, so that from should be above 0, and not {low}")
    if log and step is not None:
        raise _wrong("has log and step; one of them")
    return Range(low, high, step, log)


Metrics = Metric | Annotated[tuple[Metric, ...], Bounds(min_length=1, max_length=3)]
_SEVERAL = "of several, the trials that no other is better than in all of them are found (a Pareto front)"


class Search(Section):
    trials: int | None = field(
        None, ge=1, le=MAX_TRIALS, description=f"How many jobs; default: {DEFAULT_TRIALS}, of a grid all points."
    )
    sampler: Literal["tpe", "random", "grid", "cmaes"] = field(
        "tpe",
        description="How values are chosen: by what good trials had in common (TPE, Bergstra et al., 2011), at random, "
        "all points of a grid, or by CMA-ES (Hansen, 2016), for ranges.",
    )
    pruner: Literal["none", "median", "hyperband"] = field(
        "none",
        description="Which trials are ended early: none; what is below the median of the others after as many epochs, "
        "from the sixth trial and a quarter of the epochs on; Hyperband (Li et al., 2018).",
    )
    maximize: Metrics | None = field(
        None,
        description=f"The scalar that is to be high, in a trial's best epoch; {_SEVERAL}. "
        "Default: val/accuracy. Where no images are held out as val, val/ means test/.",
    )
    minimize: Metrics | None = field(None, description="The same for what is to be low.")
    space: Annotated[Space, _SpaceKind()] = field(
        description="The fields that are searched, as `train.optimizer.lr`, each with a list of choices, or with a "
        "range, `{from: 1e-4, to: 1, log: true}` or `{from: 32, to: 512, step: 32}`."
    )

    schema_rules = SEARCH_RULES

    @property
    def objectives(self) -> list[tuple[str, bool]]:
        """Returns the tags, and whether more of each is better."""
        if self.maximize is None and self.minimize is None:
            return [("val/accuracy", True)]
        return [(tag, True) for tag in _as_tuple(self.maximize)] + [(tag, False) for tag in _as_tuple(self.minimize)]

    @property
    def num_trials(self) -> int:
        points = self.num_points
        if self.sampler == "grid" and points is not None:
            return min(points, self.trials or points)
        return self.trials or DEFAULT_TRIALS

    @property
    def num_points(self) -> int | None:
        """Returns the size of the grid, or None where a range has no step."""
        axes = self.space.grid()
        return None if axes is None else math.prod(map(len, axes))

    def conflicts(self) -> Iterator[FieldConflict]:
        """Yields what does not go together."""

        def conflict(name: str, message: str, *others: str) -> FieldConflict:
            return FieldConflict(f"search.{name}", message, tuple(f"search.{field}" for field in (name, *others)))

        tags = [tag for tag, _ in self.objectives]
        is_one = len(tags) == 1
        if len(set(tags)) < len(tags):
            yield conflict("minimize" if self.minimize else "maximize", "names a scalar twice", "maximize", "minimize")
        if not is_one and self.pruner != "none":
            yield conflict("pruner", f"{self.pruner!r} needs a single objective; write none", "maximize", "minimize")
        if not is_one and self.sampler == "cmaes":
            yield conflict("sampler", "'cmaes' needs a single objective; tpe takes several", "maximize", "minimize")
        if self.sampler == "cmaes" and sum(isinstance(values, Range) for values in self.space.values()) < 2:
            yield conflict("sampler", "'cmaes' needs two ranges or more in the space; tpe takes any", "space")
        if self.sampler == "grid":
            yield from self._grid_conflicts(conflict)

    def _grid_conflicts(self, conflict: Any) -> Iterator[FieldConflict]:
        for key, values in self.space.items():
            if isinstance(values, Range) and values.points() is None:
                hint = "give it a step, or a list of choices"
                yield conflict("sampler", f"'grid' cannot count the values of {key}; {hint}", "space")
                return
        if (self.num_points or 0) > MAX_TRIALS and self.trials is None:
            yield conflict("trials", f"the grid has {self.num_points:,} points; say how many of them", "space")


def _as_tuple(tags: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if tags is None else (tags,) if isinstance(tags, str) else tags
