"""The members of a kind (algorithms, rewards, schedules, …): those of its tuple, and those that installed packages bring.

A kind is one tuple of config classes, each with a field `name` of one literal and a method `build`. The union that a recipe
is checked by, its schema, `posttrain list`, tables and tests follow from the tuple. What a package brings under an entry
point of the kind's group is looked up when a name is unknown, and by `list`; never at import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Generic, TypeVar, Union, cast, get_args

from pydantic import Field, SerializeAsAny, ValidationInfo, WrapValidator

from posttrain.settings.base import Config
from posttrain.settings.other_names import nearest

C = TypeVar("C", bound=Config)


@dataclass(frozen=True, slots=True)
class Installed(Generic[C]):
    """What a package brings under an entry point: a config class, or the fault that keeps it from being used."""

    name: str
    package: str
    member: type[C] | None
    fault: str = ""


class Kind(Generic[C]):
    """A kind that recipes name the members of.

    Args:
        what: one of them, in words.
        group: of entry points.
        base: what every member inherits from.
        members: of this package.
        wrap: makes a member of an object that an entry point brings and that is no subclass of `base`.
    """

    def __init__(
        self,
        what: str,
        *,
        group: str,
        base: type[C],
        members: tuple[type[C], ...],
        wrap: Callable[[EntryPoint, Any], type[C]],
    ) -> None:
        self.what, self.group, self._base, self._wrap = what, group, base, wrap
        self.members = {name_of(member): member for member in members}
        self._loaded: dict[EntryPoint, type[C]] = {}

    def find(self, name: str) -> type[C] | None:
        """The member of this name, of this package or of an installed one.

        Raises:
            ValueError: an installed package brings it, and it cannot be used; or several do.
        """
        if name in self.members:
            return self.members[name]
        brought = [point for point in entry_points(group=self.group) if point.name == name]
        if len(brought) > 1:
            raise ValueError(f"{name} is brought by several packages: {', '.join(point.value for point in brought)}")
        return self._load(brought[0]) if brought else None

    def installed(self) -> Iterator[Installed[C]]:
        """All that installed packages bring, the broken ones with their fault."""
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            package = point.dist.name if point.dist is not None else point.module
            try:
                if point.name in self.members:
                    raise ValueError(f"posttrain has {article(self.what)} of this name, which is taken instead")
                yield Installed(point.name, package, self.find(point.name))
            except ValueError as error:
                yield Installed(point.name, package, None, str(error))

    def unknown(self, name: str) -> str:
        """What to say of a name that nothing bears."""
        near = nearest(name, self.members)
        hint = f" Did you mean {near}?" if near else ""
        return f"Unknown {self.what} {name!r}.{hint} There are: {', '.join(self.members)}."

    @cached_property
    def field(self) -> Any:
        """The type of a field that holds one member: the discriminated union, and what is installed."""
        union = Annotated[Union[tuple(self.members.values())], Field(discriminator="name")]  # noqa: UP007  (made of a tuple)
        return Annotated[SerializeAsAny[union], WrapValidator(self._validated)]  # pyright: ignore[reportInvalidTypeArguments]

    def _validated(self, value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
        if isinstance(value, self._base):
            return value
        name = value.get("name") if isinstance(value, dict) else None
        if isinstance(name, str) and name not in self.members and (member := self.find(name)) is not None:
            return member.model_validate(value, context=info.context)
        return handler(value)

    def _load(self, point: EntryPoint) -> type[C]:
        if point not in self._loaded:
            try:
                brought = point.load()
            except Exception as error:  # an installed package may fail in any way
                raise ValueError(f"{point.name} ({point.value}) cannot be loaded: {type(error).__name__}: {error}") from error
            is_member = isinstance(brought, type) and issubclass(brought, self._base)
            if is_member and name_of(brought) != point.name:
                raise ValueError(f"{point.value} calls itself {name_of(brought)!r}, and its entry point {point.name!r}")
            self._loaded[point] = cast("type[C]", brought) if is_member else self._wrap(point, brought)
        return self._loaded[point]


def name_of(member: type[Config]) -> str:
    """The name by which a recipe asks for a config class."""
    return get_args(member.model_fields["name"].annotation)[0]


def article(what: str) -> str:
    """The noun with its article."""
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
