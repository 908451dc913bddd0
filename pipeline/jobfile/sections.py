"""Sections of a job file as frozen Pydantic models, and the kinds of field that Pydantic does not bring.

A named section (`model: {name: vgg, depth: 11}`) is validated by the model of the entry that it names, and by that one
alone; models are made when they are first asked for. Where the name is wrong, a model of all fields that some entry
has judges what can be judged without it, so that a wrong name hides no other mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, create_model
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from pipeline.jobfile.entries import Entry


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class NamedSection(Section):
    """A section whose `name` is an entry of the catalog; its other fields are the entry's options."""

    entry: ClassVar[Entry]
    name: str = Field(description="The entry.")

    def options(self) -> dict[str, Any]:
        """What the catalog's entry declares, as keyword arguments for its code."""
        return {key: getattr(self, key) for key in self.entry.options}


class ChosenByName:
    """Annotates a field with the entries that its section may name.

    base: the model of the fields that the sections of all entries have.
    default: the name of a section that gives none. is_short: the name alone may stand for a section without options.
    """

    def __init__(
        self,
        noun: str,
        entries: Mapping[str, Entry],
        base: type[NamedSection] = NamedSection,
        *,
        default: str | None = None,
        is_short: bool = False,
    ) -> None:
        self.noun, self.entries, self.base, self.default, self.is_short = noun, entries, base, default, is_short
        self._models: dict[str | None, type[NamedSection]] = {}

    def model(self, name: object) -> type[NamedSection]:
        """The model of the sections that have this name, or of those that have a wrong one or none."""
        key = name if isinstance(name, str) and name in self.entries else None
        if key not in self._models:
            self._models[key] = self._model_of_no_entry() if key is None else self._model_of(key)
            if key is not None:
                self._models[key].entry = self.entries[key]
        return self._models[key]

    def having(self, field: str) -> list[str]:
        """The names of the entries that have an option."""
        return [name for name, entry in self.entries.items() if field in entry.options]

    def _model_of(self, name: str) -> type[NamedSection]:
        entry, default = self.entries[name], name if name == self.default else ...
        fields: dict[str, Any] = {"name": (Literal[name], Field(default, description=entry.summary)), **entry.options}
        return create_model(f"{name}_section", __base__=self.base, __doc__=entry.summary, **fields)

    def _model_of_no_entry(self) -> type[NamedSection]:
        """Refuses any name, judges each field that is the same wherever it is, and takes any value of the others."""
        fields: dict[str, Any] = {}
        for key in dict.fromkeys(key for entry in self.entries.values() for key in entry.options):
            declared = [self.entries[name].options[key] for name in self.having(key)]
            first, *others = ((type_, *field.metadata) for type_, field in declared)
            is_one_kind = all(other == first for other in others)
            fields[key] = (Annotated[(*first, Field())] if is_one_kind else Any, None)
        fields["name"] = (Annotated[Any, _Refused()], ...)
        return create_model("section_of_no_entry", __base__=self.base, **fields)

    def section(self, value: object, *, is_json: bool = True) -> NamedSection:
        """The validated section. Raises ValidationError with all that is wrong in it, by the keys that were written."""
        if isinstance(value, NamedSection):
            return value
        if self.is_short and isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            raise PydanticKnownError("dict_type")
        if self.default and "name" not in value:
            value = {"name": self.default, **value}
        model = self.model(value.get("name"))
        # as JSON, for a list is a tuple there alone: the models are strict
        return model.model_validate_json(json.dumps(value)) if is_json else model.model_validate(value)

    def validate(self, value: object, info: core_schema.ValidationInfo) -> NamedSection:
        return self.section(value, is_json=info.mode == "json")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A union of the entries' models, so that an editor completes each by itself."""
        models = tuple(self.model(name) for name in self.entries)
        choice: Any = Annotated[Union[models], Field(discriminator="name")]  # noqa: UP007 - a tuple of types
        if self.is_short:
            choice = choice | Literal[*self.entries]
        return handler(TypeAdapter(choice).core_schema)


class _Refused:
    """Annotates a name that is not that of any entry."""

    def refuse(self, _: object) -> None:
        raise PydanticCustomError("unknown_name", "names no entry of the catalog")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.refuse)


class TextFormat:
    """Annotates text that matches a pattern; `complaint` tells a person what is wrong otherwise."""

    def __init__(self, pattern: str, complaint: str) -> None:
        self.pattern, self.complaint = pattern, complaint

    def check(self, value: object) -> object:
        if re.fullmatch(self.pattern, str(value)) is None:
            raise PydanticCustomError("format", "{complaint}", {"complaint": self.complaint})
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^({self.pattern})$"}


_DURATION = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit in "dhms"))
_MAX_DAYS = 366


class InSeconds:
    """Annotates a duration: `90`, `90s`, `5m`, `1h30m` or `2d`, as seconds."""

    def convert(self, value: object) -> int:
        match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
        if match:
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            value = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if type(value) is not int:
            raise PydanticCustomError("duration", "is not a duration; write 90s, 5m, 1h30m, 2d or a number of seconds")
        if not 1 <= value <= _MAX_DAYS * 86400:
            raise PydanticCustomError(
                "duration", "is out of range; a duration is from 1s to {days}d", {"days": _MAX_DAYS}
            )
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.convert)

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": _MAX_DAYS * 86400},
                {"type": "string", "pattern": r"^(?=.)(\d+d)?(\d+h)?(\d+m)?(\d+s)?$"},
            ]
        }


Duration = Annotated[int, InSeconds()]
