"""One YAML file becomes one frozen, validated config, and back. An unknown key is refused with the nearest known one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from occpipe.core.config import Config
from occpipe.core.config_section import Section
from occpipe.core.errors import ConfigError

MAX_CHARS = 100_000
MAX_DEPTH = 50
MAX_WIDTH = 120
# The parser itself raises the latter ones: for an impossible date, a !!bool that is no boolean, ...
_NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError)


def config_names() -> list[str]:
    """The names of the configs that come with the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _config_folder().iterdir() if path.name.endswith(".yaml"))


def load_config(source: str | Path = "local", overrides: Iterable[str] = ()) -> Config:
    """The config of a name (`local`, `gpu`, `paper2019`) or a YAML file, with overrides such as `policy.cut=0.3`.

    Raises ConfigError with one line: no such file, not YAML, an unknown key (with the nearest one), a wrong value.
    """
    return _with_overrides(_read(source), overrides, f"config {source}")


def with_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """A config with overrides such as `policy.cut=0.3`; raises ConfigError as `load_config` does."""
    return _with_overrides(config.model_dump(mode="json"), overrides, "config")


def _with_overrides(values: dict[str, Any], overrides: Iterable[str], name: str) -> Config:
    for override in overrides:
        _apply(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(f"{name}: {'; '.join(_explain(error))}")) from None


def config_text(config: Config) -> str:
    """A config as YAML with all keys and their descriptions; the text of `configs/local.yaml` for the defaults."""
    return "\n".join([f"# {_summary(config)}", *_lines(config, "", set())]) + "\n"


def _lines(section: Section, indent: str, described: set[str]) -> Iterator[str]:
    """The lines of a section; keys that several sections share are described once."""
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        child = getattr(section, name)
        is_section = isinstance(child, Section)
        line = f"{indent}{name}:" if is_section else f"{indent}{name}: {_flow(values[name])}"
        text = _summary(child) if is_section else field.description
        if not indent:
            yield ""
        if not text or text in described:
            yield line
        elif len(commented := f"{line:<28} # {text}") <= MAX_WIDTH:
            yield commented
        else:
            yield from (f"{indent}# {text}", line)
        described.add(text or "")
        if is_section:
            yield from _lines(child, f"{indent}  ", described)


def _summary(section: Section) -> str:
    return (type(section).__doc__ or "").partition("\n")[0]


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def overrides_of(config: Config) -> list[str]:
    """The overrides that turn the default config into this one, such as `policy.cut=0.3`."""
    return list(_differences(config.model_dump(mode="json"), Config().model_dump(mode="json"), ""))


def _differences(values: dict[str, Any], defaults: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and defaults[name]:  # a section; a mapping with free keys is empty by default
            yield from _differences(value, defaults[name], f"{prefix}{name}.")
        elif value != defaults[name]:
            yield f"{prefix}{name}={json.dumps(value, ensure_ascii=False)}"


def _config_folder() -> Any:
    packaged = files("occpipe").joinpath("configs")
    return (
        packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"
    )  # in a checkout they stand at the top


def _read(source: str | Path) -> dict[str, Any]:
    name = str(source)
    file: Any = (
        Path(name).expanduser() if name.endswith((".yaml", ".yml")) else _config_folder().joinpath(f"{name}.yaml")
    )
    try:
        text = file.read_text(encoding="utf-8")
        if len(text) > MAX_CHARS:
            raise ConfigError(f"config {name} has more than {MAX_CHARS} characters")
        values = _parse(text)
    except FileNotFoundError:
        raise ConfigError(f"no config {name}; by name: {', '.join(config_names())}; or the path of a .yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {name} cannot be read: {error}") from None
    except _NO_YAML as error:
        raise ConfigError(_one_line(f"config {name} is not YAML: {error}")) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {name} must be a mapping of sections")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set takes section.key=value, not {override!r:.80}")
    for part in path[:-1]:
        child = values.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(_one_line(f"--set {key}: {part} is a value, not a section"))
        values = child
    try:
        values[path[-1]] = _parse(text)
    except _NO_YAML:
        raise ConfigError(_one_line(f"--set {key}: {text!r:.80} is not a YAML value")) from None


def _parse(text: str) -> Any:
    """A YAML document. Aliases are refused, because a few lines of them can expand to more values than fit in memory."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH}")
    return yaml.safe_load(text)


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path, known_keys(), n=1, cutoff=0.4)
            yield f"unknown key {path}" + (f", did you mean {near[0]}?" if near else "")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "tuple_type":
                message = "a list is needed, such as [dog, cat]"
            value = "" if isinstance(problem["input"], dict | BaseModel) else f" (got {_shown(problem['input'])})"
            yield f"{path}: {message}{value}" if path else message


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python does not print a number of more than 4,300 digits
        return f"{type(value).__name__} of very many digits"


def _one_line(message: str) -> str:
    """The message in one line; keys come from a file and may contain line breaks."""
    return " ".join(message.split())


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """All keys of the config, with its sections: `policy`, `policy.cut`, ..."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
    return keys
