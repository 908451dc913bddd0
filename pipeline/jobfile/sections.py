"""Sections of a job file: frozen, closed, with every default filled in.

A named section (`model: {name: vgg, depth: 11}`) is validated by the class of the entry that it names, and by that one
alone; classes are made when they are first asked for. Where the name is wrong, a class of all fields that some entry
has judges what can be judged without it, so that a wrong name hides no other mistake.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_type_hints

from pydantic_core import (
    CoreConfig,
    CoreSchema,
    PydanticCustomError,
    PydanticKnownError,
    SchemaValidator,
    core_schema,
)

from pipeline.errors import OwnCodeError
from pipeline.jobfile import own_modules
from pipeline.jobfile.entries import Entry
from pipeline.jobfile.fields import Field, field
from pipeline.jobfile.schema_parts import JsonSchema

CONFIG = CoreConfig(strict=True, allow_inf_nan=False, extra_fields_behavior="forbid")


class Section:
    """What stands in braces in a job file. It has that part of the interface of Pydantic's models that is used here."""

    model_fields: ClassVar[Mapping[str, Field]] = {}
    takes_any: ClassVar[bool] = False  # fields that are not declared, too, and drops them
    schema_rules: ClassVar[Sequence[JsonSchema]] = ()  # what a JSON Schema can say of fields that do not go together

    def __init_subclass__(cls) -> None:
        """Takes the declared fields out of the class; an instance has their values."""
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        cls.model_fields = {**cls.model_fields, **own}
        for name in own:
            delattr(cls, name)

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(self.model_validate(values).__dict__)

    @classmethod
    def model_validate(cls, value: object) -> Self:
        """Raises ValidationError with all that is wrong."""
        section: Self = cls._validator().validate_python(value)
        return section

    @classmethod
    def model_validate_json(cls, text: str | bytes) -> Self:
        """Validates JSON, where a list is a tuple too. Raises ValidationError with all that is wrong."""
        section: Self = cls._validator().validate_json(text)
        return section

    @classmethod
    @functools.cache
    def _validator(cls) -> SchemaValidator:
        return SchemaValidator(cls.schema(), CoreConfig(**CONFIG, title=cls.__name__))

    @classmethod
    def schema(cls) -> CoreSchema:
        cls.fill_in_types()
        fields = {name: core_schema.model_field(field.schema()) for name, field in cls.model_fields.items()}
        behavior: Literal["ignore", "forbid"] = "ignore" if cls.takes_any else "forbid"
        values = core_schema.model_fields_schema(fields, model_name=cls.__name__, extra_behavior=behavior)
        return core_schema.json_or_python_schema(
            core_schema.no_info_after_validator_function(cls._make, values),
            core_schema.no_info_wrap_validator_function(cls._take, values),
        )

    @classmethod
    def fill_in_types(cls) -> None:
        types = get_type_hints(cls, include_extras=True)
        for name, declared in cls.model_fields.items():
            declared.annotation = types[name]

    @classmethod
    def _make(cls, validated: tuple[dict[str, Any], object, set[str]]) -> Self:
        section = cls.__new__(cls)
        values = section.__dict__
        values.update(validated[0])
        for name, declared in cls.model_fields.items():
            if declared.unless and (name not in validated[2] or values[name] is None):
                values[name] = declared.default if values[declared.unless] is None else None
        section.check()
        return section

    @classmethod
    def _take(cls, value: object, validate: Callable[[object], Any]) -> Self:
        return value if isinstance(value, cls) else cls._make(validate(value))

    def check(self) -> None:
        """Raises ValidationError where valid fields do not fit together."""

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """Returns a copy with other values, which are not validated."""
        section = type(self).__new__(type(self))
        section.__dict__.update(self.__dict__ | dict(update))
        return section

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> dict[str, Any]:
        return {name: _plain(value, list if mode == "json" else tuple, mode) for name, value in self.__dict__.items()}

    def model_dump_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def as_section(annotation: Any) -> type[Section] | None:
    """The section that a field is, or may be; None where it is none."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _plain(value: Any, sequence: type, mode: Literal["python", "json"]) -> Any:
    if isinstance(value, Section):
        return value.model_dump(mode=mode)
    if isinstance(value, Mapping):  # the space of a sweep
        return value.plain()  # type: ignore[attr-defined]
    return sequence(_plain(item, sequence, mode) for item in value) if isinstance(value, tuple) else value


class NamedSection(Section):
    """A section whose `name` is an entry; its other fields are the entry's options."""

    entry: ClassVar[Entry]
    name: str = field(description="The entry.")

    def options(self) -> dict[str, Any]:
        """What the entry declares, as keyword arguments for its code."""
        values = {key: getattr(self, key) for key in self.entry.options}
        options = {key: value.model_dump() if isinstance(value, Section) else value for key, value in values.items()}
        return options if self.entry.own is None else self.entry.own.with_lists(options)


class ChosenByName:
    """Annotates a field with the entries that its section may name: the catalog's, or `file:Class` of the user's own.

    kind: of the entries, one of `own_modules.KINDS`.
    base: the class of the fields that the sections of all entries have.
    default: the name of a section that gives none. is_short: the name alone may stand for a section without options.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Entry],
        base: type[NamedSection] = NamedSection,
        *,
        default: str | None = None,
        is_short: bool = False,
        further: tuple[Sequence[str], Entry] = ((), Entry("", "")),
    ) -> None:
        """further: names that one entry stands for, beside those that have one each."""
        self.further_names, self.further_entry = further
        self.kind, self.entries, self.base, self.default, self.is_short = kind, entries, base, default, is_short
        self._classes: dict[str | None, type[NamedSection]] = {}

    def section_class(self, name: object) -> type[NamedSection]:
        """The class of the sections that have this name, or of those that have a wrong one or none."""
        entry = self.entry(name)
        if entry is None:
            key = "" if own_modules.is_own(name) else None
            return self._classes.setdefault(key, self._class_of_no_entry(takes_any=key == ""))
        made = self._classes.get(str(name))
        if made is None or made.entry is not entry:
            made = self._classes[str(name)] = self._class_of(str(name), entry)
        return made

    def entry(self, name: object) -> Entry | None:
        """The entry of a name, or what it stands for in the user's own modules; None where it is neither."""
        if name in self.further_names:
            return self.further_entry
        with contextlib.suppress(OwnCodeError):
            return self._own_entry(str(name)) if own_modules.is_own(name) else self.entries.get(str(name))
        return None

    def _own_entry(self, name: str) -> Entry:
        fields = {"entry", *self.base.model_fields, *(name for name in dir(NamedSection) if not name.startswith("_"))}
        return own_modules.current().entry(self.kind, name, taken=frozenset(fields))

    def why_not(self, name: str) -> str:
        """Why a name that is meant to be one of the user's own is none; nothing where it is."""
        try:
            self._own_entry(name)
        except OwnCodeError as error:
            return str(error)
        return ""

    @property
    def noun(self) -> str:
        return own_modules.KINDS[self.kind].noun

    def own_names(self) -> list[str]:
        """The names in the user's own modules that may be chosen here, as far as that can be told by looking."""
        return [name for name in own_modules.current().listing(self.kind) if self.entry(name)]

    def having(self, option: str) -> list[str]:
        """The names of the entries that have an option."""
        group = [f"{self.further_names[0].partition('/')[0]}/..."] if option in self.further_entry.options else []
        return [name for name, entry in self.entries.items() if option in entry.options] + group

    def _class_of(self, name: str, entry: Entry) -> type[NamedSection]:
        default = name if name == self.default else ...
        names = self.further_names if entry is self.further_entry else (name,)
        options = {"name": (Literal[tuple(names)], field(default, description=entry.summary)), **entry.options}
        section = _make_class(f"{name.partition('/')[0]}_section", self.base, options, entry.summary)
        section.entry = entry
        return section

    def _class_of_no_entry(self, *, takes_any: bool) -> type[NamedSection]:
        """Refuses any name, judges each field that is the same wherever it is, and takes any value of the others.

        takes_any: other fields too, which are those of an entry that cannot be read.
        """
        options: dict[str, tuple[Any, Field]] = {"name": (Annotated[Any, _Refused()], field(description="Refused."))}
        entries = (*self.entries.values(), self.further_entry)
        for key in dict.fromkeys(key for entry in entries for key in entry.options):
            (kind, first), *others = (entry.options[key] for entry in entries if key in entry.options)
            is_one_kind = all((other, declared.bounds) == (kind, first.bounds) for other, declared in others)
            bounds = first.bounds if is_one_kind else {}
            options[key] = (kind if is_one_kind else Any, Field(None, first.description, bounds, first.unless))
        if takes_any:
            options = {"name": options["name"]}
        made = _make_class("section_of_no_entry", self.base, options, "")
        made.takes_any = takes_any
        return made

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
        chosen = self.section_class(value.get("name"))
        # as JSON, for a list is a tuple there alone: the sections are strict
        return chosen.model_validate_json(json.dumps(value)) if is_json else chosen.model_validate(value)

    def validate(self, value: object, info: core_schema.ValidationInfo) -> NamedSection:
        return self.section(value, is_json=info.mode == "json")

    def schema(self, of_type: CoreSchema) -> CoreSchema:  # noqa: ARG002
        return core_schema.with_info_plain_validator_function(self.validate)


def _make_class(
    name: str, base: type[NamedSection], options: Mapping[str, tuple[Any, Field]], summary: str
) -> type[NamedSection]:
    fields = {
        key: Field(declared.default, declared.description, declared.bounds, declared.unless)
        for key, (_, declared) in options.items()
    }
    annotations = {key: kind for key, (kind, _) in options.items()}
    namespace = {"__annotations__": annotations, "__doc__": summary, "__module__": base.__module__, **fields}
    made: type[NamedSection] = type(name, (base,), namespace)
    return made


class _Refused:
    """Annotates a name that is not that of any entry."""

    def refuse(self, _: object) -> None:
        raise PydanticCustomError("unknown_name", "names no entry of the catalog")

    def schema(self, of_type: CoreSchema) -> CoreSchema:  # noqa: ARG002
        return core_schema.no_info_plain_validator_function(self.refuse)

    def json_schema(self, of_type: JsonSchema) -> JsonSchema:
        return of_type
