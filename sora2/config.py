"""Plain mappings (YAML, Hydra) to frozen dataclasses and back, with errors that name the key and the remedy."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from sora2.errors import UserError

T = TypeVar("T")


class ConfigError(UserError):
    """An unknown key, a value of the wrong type, or a combination that cannot work."""


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from a mapping, recursively.

    Unknown keys, missing keys and wrong types raise `ConfigError` with the dotted key; the closest known key is
    suggested. `where` is the dotted prefix used in messages.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where or cls.__name__}: expected a group of keys, got {mapping!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(sorted(fields))}"
            raise ConfigError(f"unknown config key {_join(where, key)!r}{hint}")
    hints = typing.get_type_hints(cls)
    values = {key: _convert(hints[key], value, _join(where, key)) for key, value in mapping.items()}
    missing = [
        name
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"config key {_join(where, missing[0])!r} is missing: {cls.__name__} needs it")
    return cls(**values)


def to_mapping(value: Any) -> Any:
    """A dataclass as nested plain dicts and lists, fit for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): to_mapping(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_mapping(v) for v in value]
    return value


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        errors = []
        for option in (a for a in args if a is not type(None)):
            try:
                return _convert(option, value, where)
            except ConfigError as error:
                errors.append(str(error))
        raise ConfigError(errors[0])
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{where}={value!r} is not one of {', '.join(map(repr, args))}")
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_mapping(hint, value, where)  # type: ignore[arg-type]
    if origin in (tuple, list):
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise ConfigError(f"{where}={value!r} must be a list")
        items = list(value)
        if origin is tuple and args and args[-1] is not Ellipsis and len(args) != len(items):
            raise ConfigError(f"{where}={value!r} must have {len(args)} entries, got {len(items)}")
        inner = (
            args
            if origin is tuple and args and args[-1] is not Ellipsis
            else (args[:1] or (Any,)) * len(items)
        )
        return origin(
            _convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(inner, items, strict=True))
        )
    if origin is dict or hint is dict or origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}={value!r} must be a mapping")
        inner_hint = args[1] if len(args) == 2 else Any
        return {str(k): _convert(inner_hint, v, _join(where, k)) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # name=42 on a command line is a name
    if isinstance(hint, type):
        if hint is not bool and isinstance(value, bool) and hint is not object:
            raise ConfigError(f"{where}={value!r} must be {hint.__name__}, not true/false")
        if not isinstance(value, hint):
            raise ConfigError(f"{where}={value!r} must be {hint.__name__}, got {type(value).__name__}")
    return value
