"""What all configs share: frozen, an unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from posttrain.settings.other_names import key_hint

Count = Annotated[int, Field(ge=1)]
NonNegativeCount = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

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
        unknown = [key for key in values if key not in cls.model_fields] if isinstance(values, dict) else []
        if unknown:
            hint = key_hint(str(unknown[0]), cls.model_fields)
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
