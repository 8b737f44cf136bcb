"""A study that shows an asset the settings it declared alone, and notes those it looked at.

Belongs here: the guard. Does not belong here: the settings (each package's settings.py).

A setting is declared by its section (`heads`) or as one key of it (`sae.seed`). A result depends on
the settings that its asset looked at, since whatever decides which others are looked at is a
setting itself; so these, with their values, are what is recorded.
"""

import json
from collections.abc import Iterable
from typing import Any, cast

from pydantic import BaseModel

from mechinterp_assets.orchestration.reads import UndeclaredReadError
from mechinterp_assets.studies.study import Study

# What identifies a study and its partitions is free to use.
_FREE = frozenset({"study", "file", "n_layers", "layers", "sites"})


class DeclaredSettings:
    """The guard of one study for one asset."""

    def __init__(self, study: Study, declared: Iterable[str], asset: str) -> None:
        self._study, self._asset = study, asset
        self._declared = frozenset(declared)
        self.used: dict[str, str] = {}

    @property
    def study(self) -> Study:
        """The guarded study: has the attributes of `Study` that were declared."""
        return cast(Study, _GuardedStudy(self))

    def value(self, path: str) -> Any:
        """The setting `section` or `section.key`, noted as used."""
        section, _, key = path.partition(".")
        return getattr(self.section(section), key) if key else self.section(section)

    def section(self, name: str) -> Any:
        """A section, or a guard of it where only some of its keys were declared."""
        keys = {d.partition(".")[2] for d in self._declared if d.partition(".")[0] == name}
        if not keys:
            raise UndeclaredReadError(
                f"{self._asset} uses the setting {name!r} without saying so; add it (or one of its "
                f"keys, such as '{name}.seed') to settings in its declaration"
            )
        value = getattr(self._study, name)
        if "" in keys:
            self._note(name, value)
            return value
        return _GuardedSection(self, name, keys)

    def key(self, section: str, name: str, keys: set[str]) -> Any:
        """One declared key of a section."""
        if name not in keys:
            raise UndeclaredReadError(
                f"{self._asset} uses the setting '{section}.{name}' without saying so; add it to "
                "settings in its declaration"
            )
        value = getattr(getattr(self._study, section), name)
        self._note(f"{section}.{name}", value)
        return value

    def _note(self, path: str, value: Any) -> None:
        self.used[path] = json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


class _GuardedStudy:
    def __init__(self, guard: DeclaredSettings) -> None:
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        if name in _FREE:
            return getattr(self._guard._study, name)
        if name not in Study.model_fields:
            raise AttributeError(f"a study has no setting {name!r}")
        return self._guard.section(name)


class _GuardedSection:
    def __init__(self, guard: DeclaredSettings, name: str, keys: set[str]) -> None:
        self._guard, self._name, self._keys = guard, name, keys

    def __getattr__(self, name: str) -> Any:
        return self._guard.key(self._name, name, self._keys)
