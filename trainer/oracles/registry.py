"""Oracles by name: the built-in ones, and those that installed packages offer as entry points `likestep.oracles`.

An entry point names a class (or function) whose keyword parameters are the oracle's options and whose result is an
`Oracle`. The parameters' annotations say how options are checked, so there is no second list of them anywhere.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from trainer.oracles.base import Oracle
from trainer.oracles.checked import CheckedOracle
from trainer.plugins import offered

GROUP = "likestep.oracles"

_BUILT_IN = {
    "aesthetic": "trainer.oracles.taste:AestheticOracle",
    "demo": "trainer.oracles.demo:DemoOracle",
    "geneval": "trainer.oracles.photos:GenEvalOracle",
    "hpsv2": "trainer.oracles.preference:HPSv2Oracle",
    "hpsv3": "trainer.oracles.preference:HPSv3Oracle",
    "imagereward": "trainer.oracles.preference:ImageRewardOracle",
    "jpeg": "trainer.oracles.taste:JpegOracle",
    "mix": "trainer.oracles.mix:MixOracle",
    "ocr": "trainer.oracles.ocr:OCROracle",
    "pickscore": "trainer.oracles.taste:PickScoreOracle",
    "questions": "trainer.oracles.questions:QuestionOracle",
    "remote": "trainer.oracles.remote:RemoteOracle",
    "scenes": "trainer.oracles.scenes:SceneOracle",
}
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def entry_points() -> dict[str, metadata.EntryPoint]:
    """Every oracle by name. Raises ValueError when two packages, or a package and Likestep, use one name."""
    return offered(GROUP, "oracle", _BUILT_IN)


def parse_spec(spec: str) -> tuple[str, dict]:
    """("name", options) of "name", "name:key=value,key=value" or "name:{JSON object}".

    Values of the second form stay strings; those with a comma need JSON. Raises ValueError on anything else.
    """
    name, _, rest = spec.strip().partition(":")
    name, rest = name.strip(), rest.strip()
    if not rest:
        return name, {}
    if rest.startswith("{"):
        try:
            return name, json.loads(rest, object_pairs_hook=functools.partial(_unique, name))
        except json.JSONDecodeError as e:
            raise ValueError(f"{name}: the options are not valid JSON ({e})") from None
    pairs = []
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{name}: {part!r} is not an option; write key=value, or all options as JSON")
        pairs.append((key.strip(), value.strip()))
    return name, _unique(name, pairs)


def _unique(name: str, pairs: list[tuple[str, object]]) -> dict:
    options = dict(pairs)
    if len(options) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"{name}.{twice}: is given twice; keep one")
    return options


def _convert(field: str, value: object, kind: object) -> object:
    """The value as the annotated kind; text is read as numbers and truth values, as it comes from a command line."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        if value is None:
            return None
        (kind,) = [k for k in typing.get_args(kind) if k is not type(None)]
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if kind is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    if kind in (int, float) and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) and (kind is float or number.is_integer()):
            return kind(number)
    raise ValueError(f"{field}: {value!r} is not {_KINDS.get(kind, kind)}")


def checked_options(name: str, factory: Callable[..., Oracle], options: Mapping) -> dict:
    """The options converted to the factory's annotations. Raises ValueError that names the field."""
    parameters = inspect.signature(factory).parameters
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    rest = next((p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    known = [p.name for p in parameters.values() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    checked = {}
    for key, value in options.items():
        if key not in known and rest is None:
            raise ValueError(
                f"{name}.{key}: there is no such option; " + (f"use {', '.join(known)}" if known else "it has none")
            )
        checked[key] = _convert(f"{name}.{key}", value, hints.get(key if key in known else rest, str))
    for key in known:
        if key not in checked and parameters[key].default is inspect.Parameter.empty:
            raise ValueError(f"{name}.{key}: is missing; give it as {name}:{key}=…")
    return checked


@functools.lru_cache(maxsize=8)
def get_oracle(spec: str) -> Oracle:
    """An oracle by name and options, see `parse_spec`, whose answers are checked; the same spec gives the same oracle, so
    models load once.

    Raises ValueError that names the field when there is no such oracle or option.
    """
    name, options = parse_spec(spec)
    points = entry_points()
    if name not in points:
        raise ValueError(f"oracle: there is no oracle {name!r}; use {', '.join(sorted(points))}")
    try:
        factory = points[name].load()
    except (ImportError, AttributeError) as e:
        raise ValueError(f"oracle: {name!r} cannot be loaded from {points[name].value} ({e})") from e
    return CheckedOracle(factory(**checked_options(name, factory, options)))
