"""Strict loading of settings: YAML and overrides in; a ``Config``, or every fault at once, out."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlprune.config import FACTORY_ARGUMENTS, Config
from rlprune.config_faults import faults_of, faults_of_given, replaced, space_faults
from rlprune.config_values import Setting, all_settings, coerce, coerce_space, describe, nearest
from rlprune.errors import ConfigError


class FieldHelp(NamedTuple):
    """What the command line's help says of one setting."""

    name: str
    type: Any
    default: Any
    help: str
    choices: tuple[str, ...] | None


def field_help() -> Iterator[FieldHelp]:
    """Every setting under its dotted name, in the order of the dataclasses."""
    for found in all_settings().values():
        yield FieldHelp(found.name, found.type, found.default, found.help, found.choices)


def load_config(path: str | Path | None, overrides: Mapping[str, Any] | Sequence[str]) -> Config:
    """The defaults, changed by a YAML file, changed by overrides.

    Args:
        path: YAML file that holds only what differs from the defaults; None for the defaults alone.
        overrides: Dotted name -> value, or texts ``a.b=value``. Sequences may be written ``0.5,1,2``. A key
            inside a mapping is set by going on with dots: ``model.arguments.width=0.5``. A setting that is
            given here is not sampled, unless its entry of ``search.space`` is given here too; one in the file
            is not sampled if the file has no space of its own.

    Raises:
        ConfigError: With every fault of the file and of the overrides.
    """
    loading = _Loading()
    if path is not None:
        loading.take_mapping(_read_yaml(Path(path)), source=f" (in {path})")
    loading.level += 1
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            loading.take(name, value)
    else:
        for text in overrides:
            loading.take_text(text)
    return loading.finish()


def config_from_dict(mapping: Mapping[str, Any], origin: str | Path = "") -> Config:
    """The settings from nested plain values, such as those of :func:`config_to_dict`; the rest are defaults.

    Args:
        mapping: Section -> name -> value.
        origin: The file that they were stored in, for errors.

    Raises:
        ConfigError: With every fault that was found.
    """
    loading = _Loading()
    stored = f" (in {origin}, maybe of another version of rlprune)" if origin else ""
    loading.take_mapping(mapping, source=stored)
    return loading.finish()


def config_to_dict(config: Config) -> dict[str, Any]:
    """The settings as nested plain values that YAML and strict JSON can hold (NaN becomes None)."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def trial_config(config: Config, settings: Mapping[str, Any]) -> Config:
    """The settings of one trial.

    Args:
        config: The settings of the run.
        settings: Dotted name -> value, for example ``{"pruning.b": 0.5, "seed": 7}``.

    Raises:
        ConfigError: If a value does not fit its setting, or the values do not go together.
    """
    nested = config_to_dict(config)
    # other values of the space, and populations, which need one, say nothing of this trial
    nested["search"] |= {"space": {}, "scheduler": "none"}
    for name, value in settings.items():
        section, _, leaf = name.rpartition(".")
        (nested[section] if section else nested)[leaf] = value
    return dataclasses.replace(config_from_dict(nested), search=config.search)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


class _Loading:
    """Values and faults gathered from all sources; a later source wins over an earlier one."""

    def __init__(self) -> None:
        self.known = all_settings()
        self.sections = list(dict.fromkeys(name.split(".")[0] for name in self.known if "." in name))
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.faults: list[str] = []
        self.level = 0  # of what is taken in now: 0 for a file or a stored run, 1 for what overrides it
        self.levels: dict[str, int] = {}

    def take_mapping(self, mapping: Any, source: str) -> None:
        """Nested values, as in a YAML file; ``source`` ends the sentence of a fault."""
        if not isinstance(mapping, Mapping):
            self.faults.append(f"settings: expected a mapping of sections; got {describe(mapping)}{source}")
            return
        for key, value in mapping.items():
            if key not in self.sections:
                self.take(str(key), value, source)
            elif isinstance(value, Mapping):
                for leaf, item in value.items():
                    self.take(f"{key}.{leaf}", item, source)
            elif value is not None:
                self.faults.append(f"{key}: expected a section with settings; got {describe(value)}{source}")

    def take_text(self, text: str) -> None:
        """One override ``a.b=value``."""
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            self.faults.append(f"expected NAME=VALUE, for example agent.iterations=20; got {text!r}")
            return
        found = self.known.get(name)
        if found is not None and (found.type is str or (found.is_tuple and not value.startswith("["))):
            self.take(name, value)
            return
        try:
            self.take(name, _loaded(value))
        except _YAML_FAULTS as error:
            self.faults.append(f"{name}: {value!r} cannot be read as a value: {_problem(error)}")

    def take(self, name: str, value: Any, source: str = "") -> None:
        """One value under its dotted name, or under the name of a mapping and a key in it."""
        if self.level == 0 and name in self.levels:
            self.faults.append(f"{name}: is given twice, once with dots and once without{source}")
        self.levels[name] = self.level
        parent = next((found for found in self.known.values() if _is_key_of(name, found)), None)
        if parent is not None:
            so_far = self.values.get(parent.name, self._default(parent))
            value = {**(so_far if isinstance(so_far, Mapping) else {}), name[len(parent.name) + 1 :]: value}
            name = parent.name
        if name in self.known:
            self.values[name] = value
            self.sources[name] = source
        elif name in self.sections:
            first = next(other for other in self.known if other.startswith(f"{name}."))
            self.faults.append(f"{name}: is a section; set one of its settings, for example {first}{source}")
        else:
            self.faults.append(f"{name}: unknown setting{self._offer(name)}{source}")

    def _default(self, setting: Setting) -> Any:
        """A setting's default; that of the factory's arguments goes with the factory named so far."""
        factory = self.values.get("model.factory")
        if setting.name == "model.arguments" and factory is not None:
            return FACTORY_ARGUMENTS.get(str(factory), {})
        return setting.default

    def _offer(self, name: str) -> str:
        section = name.split(".")[0]
        offer = nearest(name, self.known if "." in name else [*self.sections, *self.known])
        if offer:
            return offer
        if section in self.sections and "." in name:
            leaves = [other.split(".")[1] for other in self.known if other.startswith(f"{section}.")]
            return f"; {section} has {', '.join(leaves)}"
        return f"; expected one of {', '.join(dict.fromkeys(other.split('.')[0] for other in self.known))}"

    def _sampled(self, space: Mapping[str, Any]) -> dict[str, Any]:
        """A search space without the settings that are given at a higher level than their entries."""

        def entry_level(name: str) -> int:
            return max(self.levels.get(given, -1) for given in ("search.space", f"search.space.{name}"))

        return {
            name: entry for name, entry in space.items() if self.levels.get(name, -1) <= entry_level(name)
        }

    def finish(self) -> Config:
        """The settings, or all faults in one :class:`ConfigError`."""
        good: dict[str, Any] = {}
        defaulted: set[str] = set()
        if "model.factory" in self.values:
            good["model.arguments"] = FACTORY_ARGUMENTS.get(str(self.values["model.factory"]), {})
        for name, value in self.values.items():
            good[name], faults = coerce(self.known[name], value)
            if faults and good[name] == self.known[name].default:
                defaulted.add(name)
            self.faults += [fault + self.sources[name] for fault in faults]
        if "search.space" in good:
            good["search.space"], faults = coerce_space(good["search.space"], self.known)
            self.faults += [fault + self.sources["search.space"] for fault in faults]
        good["search.space"] = self._sampled(good.get("search.space", self.known["search.space"].default))
        if good.get("search.target_macs") and "search.b_grid" not in self.values:
            good["search.b_grid"] = ()
        config = _build(good)
        combinations = list(faults_of(config))
        combinations += space_faults(config, set(combinations))
        if self.level:
            combinations += faults_of_given(config, set(combinations))
        self.faults += [fault for fault in combinations if not any(name in fault for name in defaulted)]
        if self.faults:
            raise ConfigError(self.faults)
        return config


def _is_key_of(name: str, setting: Setting) -> bool:
    return setting.is_mapping and name.startswith(f"{setting.name}.")


def _build(values: Mapping[str, Any]) -> Config:
    """The defaults with the given settings (dotted name -> value of the right type) in their place."""
    config = Config()
    for name, value in values.items():
        config = replaced(config, name, value)
    return config


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader that refuses duplicate keys and reads 1e-3 as a number, as YAML 1.2 does."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """The mapping, unless a key is in it twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return node


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


_YAML_FAULTS = (yaml.YAMLError, ValueError, AttributeError, RecursionError)
"""What PyYAML raises: the last three for dates that are none, numbers without digits and endless nesting."""


def _loaded(text: str) -> Any:
    content = yaml.load(text, Loader=_StrictLoader)
    json.dumps(content, default=str, skipkeys=True)  # refuses what an anchor makes a part of itself
    return content


def _read_yaml(path: Path) -> Any:
    try:
        content = _loaded(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{path}: the config file cannot be read: {reason}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected a YAML file in UTF-8; byte {error.start} is not") from error
    except _YAML_FAULTS as error:
        raise ConfigError(f"{path}: is not valid YAML: {_problem(error)}") from error
    return {} if content is None else content


def _problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)
