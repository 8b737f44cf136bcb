"""A study that shows an asset the settings it declared alone, and notes those it looked at.

Belongs here: the guard. Does not belong here: the settings (each package's settings.py).

A setting is declared by its section (`heads`) or as one key of it (`sae.seed`). A result depends on
the keys that its asset looked at, since whatever decides which others are looked at is a setting
itself; so these, with their values, are what is recorded.
"""

from collections.abc import Iterable
from functools import cached_property
from inspect import getattr_static
from types import FunctionType
from typing import Any, Self, cast

from mechinterp_assets.orchestration.reads import UndeclaredReadError
from mechinterp_assets.settings.as_text import setting_text
from mechinterp_assets.settings.section import Section
from mechinterp_assets.staleness.asked_for import LAYERS
from mechinterp_assets.studies.study import Study

# What identifies a study is free to use.
_FREE = frozenset({"study", "file", "n_layers"})
_LAYERS = frozenset({"layers", "sites"})


class DeclaredSettings:
    """The guard of one study for one asset."""

    def __init__(self, study: Study, declared: Iterable[str], asset: str) -> None:
        self._study, self._asset = study, asset
        self._declared = frozenset(declared)
        self.used: dict[str, str] = {}

    @property
    def real_study(self) -> Study:
        """The study without the guard, for what is recorded by other means."""
        return self._study

    @property
    def study(self) -> Study:
        """The guarded study: has the attributes of `Study` that were declared."""
        return cast(Study, _GuardedStudy(self))

    def value(self, path: str) -> Any:
        """The setting `section` or `section.key`, noted as used."""
        section, _, key = path.partition(".")
        return getattr(self.section(section), key) if key else self.section(section)

    def section(self, name: str) -> Any:
        """A guard of a section, or the value of what is a setting by itself."""
        keys = {d.partition(".")[2] for d in self._declared if d.partition(".")[0] == name}
        if not keys:
            raise UndeclaredReadError(
                f"{self._asset} uses the setting {name!r} without saying so; add it (or one of its "
                f"keys, such as '{name}.seed') to settings in its declaration"
            )
        value = getattr(self._study, name)
        if isinstance(value, Section):
            return _GuardedSection(self, name, value, None if "" in keys else frozenset(keys))
        self.note(f"settings:{name}", value)
        return value

    def layers(self) -> list[int]:
        """Layers with an SAE, noted as used."""
        self.note(LAYERS, self._study.layers)
        return self._study.layers

    def note(self, name: str, value: Any) -> None:
        """Record that a setting was looked at."""
        self.used[name] = setting_text(value)


class _GuardedStudy:
    def __init__(self, guard: DeclaredSettings) -> None:
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        guard = self.__dict__["_guard"]
        if name in _LAYERS:
            guard.layers()
        if name in _FREE | _LAYERS:
            return getattr(guard._study, name)
        if name not in Study.model_fields:
            raise AttributeError(f"a study has no setting {name!r}")
        return guard.section(name)


class _GuardedSection:
    """A section of which each key is noted when it is looked at.

    Its methods and properties work, and look at keys through it. What takes a section whole (a copy
    with changes, a dump) has looked at all keys but those that the section calls READ_ALONE.
    """

    def __init__(
        self, guard: DeclaredSettings, name: str, section: Section, keys: frozenset[str] | None
    ) -> None:
        self.__dict__.update(_guard=guard, _name=name, _section=section, _keys=keys)

    @property  # type: ignore[misc]  # object's can be set
    def __class__(self) -> type:
        """That of the section, for isinstance."""
        return type(self.__dict__["_section"])

    def __getattr__(self, name: str) -> Any:
        guard, section, keys = (self.__dict__[part] for part in ("_guard", "_section", "_keys"))
        if name in type(section).model_fields:
            if keys is not None and name not in keys:
                raise UndeclaredReadError(
                    f"{guard._asset} uses the setting '{self.__dict__['_name']}.{name}' without "
                    "saying so; add it to settings in its declaration"
                )
            value = getattr(section, name)
            guard.note(f"settings:{self.__dict__['_name']}.{name}", value)
            return value
        found = getattr_static(type(section), name)  # AttributeError where there is no such thing
        if isinstance(found, property) and found.fget is not None:
            return found.fget(self)
        if isinstance(found, cached_property):
            return found.func(self)
        if isinstance(found, FunctionType):
            return found.__get__(self)
        return getattr(type(section), name)

    def model_dump(self, *, exclude: Iterable[str] = (), **options: Any) -> dict[str, Any]:
        section = self._look_at_all_but(frozenset(exclude))
        return section.model_dump(exclude=set(exclude), **options)

    def with_changes(self, **changes: Any) -> Self:
        return cast(Self, self._look_at_all_but(frozenset(changes)).with_changes(**changes))

    def _look_at_all_but(self, apart: frozenset[str]) -> Section:
        section: Section = self.__dict__["_section"]
        for name in type(section).model_fields.keys() - apart - section.READ_ALONE:
            getattr(self, name)
        return section
