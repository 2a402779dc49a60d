"""What all configs share: frozen, an unknown key is an error."""

from __future__ import annotations

import re
import string
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from posttrain.settings.other_names import key_hint

Count = Annotated[int, Field(ge=1)]
NonNegativeCount = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

WIDEST = 1000  # characters to which a field of a template is padded


def _is_a_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_is_a_pattern)]
"""A regular expression."""


def _names_columns(template: str) -> str:
    fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if not fields or not all(name.isidentifier() for name in fields):
        raise ValueError("its fields must be names of columns, such as {prompt}; write {{ and }} for braces")
    forms = " ".join(form or "" for _, _, form, _ in string.Formatter().parse(template))
    if "{" in forms or max(map(int, re.findall(r"\d+", forms)), default=0) > WIDEST:
        raise ValueError(f"a field is made no wider than {WIDEST} characters, and has no field in its format")
    return template


LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_here(url: str) -> bool:
    """Whether a server is on this machine."""
    return urlsplit(url).hostname in LOOPBACK


def is_address(url: str) -> str:
    """A server's.

    Raises:
        ValueError: it is none.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError(f"http://HOST:PORT is expected, not {url}")
    return url


Template = Annotated[str, AfterValidator(_names_columns)]
"""A text with fields that are columns of a row."""
RIGHT = "right"
"""The field of a teacher's template that is no column: another right answer, where the teacher is shown one."""


class Config(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, serialize_by_alias=True
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A key that a class gives another default, and no docstring, is described as in the class that it comes from."""
        schema = handler(core_schema)
        for name, key in handler.resolve_ref_schema(schema).get("properties", {}).items():
            described = [field.description for field in _fields(cls, name) if field.description]
            key |= {"description": described[0]} if described else {}
        return schema

    @model_validator(mode="before")
    @classmethod
    def _knows_its_keys(cls, values: Any) -> Any:
        known = {field.alias or name: field for name, field in cls.model_fields.items()}
        unknown = [key for key in values if key not in known] if isinstance(values, dict) else []
        if unknown:
            hint = key_hint(str(unknown[0]), known)
            raise PydanticCustomError("unknown_key", "unknown key; {hint}", {"key": str(unknown[0]), "hint": hint})
        return values


def _fields(config: type[BaseModel], name: str) -> list[FieldInfo]:
    """A field in a class and in its bases."""
    bases = [base for base in config.__mro__ if issubclass(base, BaseModel)]
    return [base.model_fields[name] for base in bases if name in base.model_fields]


def location(error: Any) -> tuple[str, ...]:
    """Where in the input an error of pydantic lies, the unknown key included."""
    key = error.get("ctx", {}).get("key") if error["type"] == "unknown_key" else None
    return (*map(str, error["loc"]), *([key] if key else []))
