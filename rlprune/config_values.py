"""One setting at a time: which settings exist, and whether a value that a user gave fits one of them."""

import dataclasses
import difflib
import math
import numbers
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from rlprune.config import Config

SAMPLED_SECTIONS = ("agent", "finetune", "pruning")
FROM_GRIDS = {"pruning.b": "search.b_grid", "pruning.target_macs": "search.target_macs"}
"""Settings that a search takes from its grids."""
_SPACE_FORMS = "{low: 0.01, high: 0.1, log: true} or {choices: [a, b]}"


@dataclass(frozen=True)
class Setting:
    """One field of :class:`rlprune.config.Config` under its dotted name."""

    name: str
    type: Any
    default: Any
    help: str
    choices: tuple[str, ...] | None
    low: float | None = None
    above: float | None = None
    high: float | None = None

    @property
    def is_tuple(self) -> bool:
        """Whether the value is a sequence, written with commas on the command line."""
        return get_origin(self.type) is tuple

    @property
    def is_mapping(self) -> bool:
        """Whether the value is a mapping whose keys the user chooses."""
        return get_origin(self.type) is dict


def all_settings() -> dict[str, Setting]:
    """Every setting by its dotted name, in the order of the dataclasses."""
    return {found.name: found for found in _walk(Config, "")}


def _walk(kind: type, prefix: str) -> Iterator[Setting]:
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        name = prefix + entry.name
        if dataclasses.is_dataclass(hints[entry.name]):
            yield from _walk(hints[entry.name], f"{name}.")
            continue
        default = entry.default
        if entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()
        yield Setting(name, hints[entry.name], default, **entry.metadata)


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that was probably meant, as the end of a sentence; empty if there is none."""
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [other for other in known if other.rsplit(".", 1)[-1] == leaf]
    found = same_leaf[:3] or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not found:
        leaves = {other.rsplit(".", 1)[-1]: other for other in known}
        found = [leaves[close] for close in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def coerce(setting: Setting, value: Any) -> tuple[Any, list[str]]:
    """The value in the setting's own type, and what is wrong with it.

    Args:
        setting: What the value is for.
        value: Anything that YAML, JSON or Python can hold.

    Returns:
        The value and no faults, or a stand-in of the right type and the faults. Of a sequence the good
        elements are kept, so that they can be checked further and all faults reported at once.
    """
    if setting.is_tuple:
        return _coerce_tuple(setting, value)
    if setting.is_mapping:
        own = _own(value)
        faults = _mapping_faults(setting.name, own)
        return (setting.default if faults else own), faults
    if setting.type is float and value is None and math.isnan(setting.default):
        return setting.default, []
    converted, fault = _coerce_scalar(setting, setting.type, value)
    return (setting.default, [fault]) if fault else (converted, [])


def _coerce_tuple(setting: Setting, value: Any) -> tuple[tuple[Any, ...], list[str]]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value.strip() else []
    elif not isinstance(value, list | tuple):
        value = [value]
    kind = get_args(setting.type)[0]
    pairs = [_coerce_scalar(setting, kind, item) for item in value]
    faults = [fault for _, fault in pairs if fault]
    good = tuple(converted for converted, fault in pairs if not fault)
    return (setting.default if faults and not good else good), faults


def _coerce_scalar(setting: Setting, kind: type, value: Any) -> tuple[Any, str]:
    """The converted value and an empty text, or the value as it came and the fault."""
    converted = _convert(kind, value)
    if converted is None:
        hint = "; put it in quotes" if kind is str and isinstance(value, int | float) else ""
        return value, f"{setting.name}: expected {_KINDS[kind]}; got {describe(value)}{hint}"
    if kind is float and not math.isfinite(converted):
        if isinstance(setting.default, float) and math.isnan(setting.default):
            return (math.nan if math.isnan(converted) else converted), ""
        return value, f"{setting.name}: expected a finite number; got {converted:g}"
    if setting.choices and converted not in setting.choices:
        offer = nearest(str(converted), setting.choices)
        allowed = ", ".join(setting.choices)
        return value, f"{setting.name}: expected one of {allowed}; got {converted!r}{offer}"
    if not _inside(setting, converted):
        return value, f"{setting.name}: expected {_KINDS[kind]} {_limits(setting)}; got {describe(value)}"
    return converted, ""


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _convert(kind: type, value: Any) -> Any:
    """The value as ``kind``, or None where that would be a guess. YAML 1.1 gives 1e-3 as text."""
    value = _own(value)
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) and kind is not bool:
        return None
    return value if isinstance(value, kind) else None


def _own(value: Any) -> Any:
    """Numbers and texts of other packages, such as numpy's, as Python's own: YAML holds no others."""
    if isinstance(value, Mapping):
        return {_own(key): _own(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        parts = [_own(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return str.__str__(value) if isinstance(value, str) else value


def _inside(setting: Setting, value: Any) -> bool:
    return not (
        (setting.low is not None and value < setting.low)
        or (setting.above is not None and value <= setting.above)
        or (setting.high is not None and value > setting.high)
    )


def _limits(setting: Setting) -> str:
    parts = (("of at least", setting.low), ("above", setting.above), ("of at most", setting.high))
    return " and ".join(f"{word} {limit:g}" for word, limit in parts if limit is not None)


def describe(value: Any) -> str:
    """A value as it should appear in an error message."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _mapping_faults(name: str, value: Any) -> list[str]:
    """What keeps a mapping from being plain YAML and JSON."""
    if not isinstance(value, Mapping):
        return [f"{name}: expected a mapping such as {{key: value}}; got {describe(value)}"]
    faults = [f"{name}: keys must be text; got {describe(key)}" for key in value if not isinstance(key, str)]
    return faults + [fault for key, item in value.items() for fault in _item_faults(f"{name}.{key}", item)]


def _item_faults(name: str, item: Any) -> list[str]:
    if isinstance(item, Mapping):
        return _mapping_faults(name, item)
    if isinstance(item, list | tuple):
        return [fault for index, part in enumerate(item) for fault in _item_faults(f"{name}[{index}]", part)]
    if isinstance(item, float) and not math.isfinite(item):
        return [f"{name}: expected a finite number; got {item:g}"]
    if not isinstance(item, bool | int | float | str | None):
        return [f"{name}: expected a number, text, true, false or a list; got {describe(item)}"]
    return []


def coerce_space(space: Mapping[str, Any], known: Mapping[str, Setting]) -> tuple[dict[str, Any], list[str]]:
    """The entries of ``search.space`` with their numbers in the right type, and what is wrong with them.

    Args:
        space: Dotted name -> ``{low, high, log}`` or ``{choices}``.
        known: Every setting by its name.

    Returns:
        The good entries, and the faults of the others.
    """
    allowed = [name for name, found in known.items() if _can_be_sampled(found)]
    good, faults = {}, []
    for name, entry in space.items():
        if name in FROM_GRIDS:
            entry_faults = [f"search.space: {name} comes from {FROM_GRIDS[name]} and cannot be sampled"]
        elif name not in allowed:
            hint = nearest(name, allowed) or "; rlprune settings lists the numbers and choices that can"
            entry_faults = [f"search.space: {name} cannot be sampled{hint}"]
        else:
            good[name], entry_faults = _coerce_entry(known[name], entry)
        if entry_faults:
            good.pop(name, None)
            faults += entry_faults
    return good, faults


def _can_be_sampled(setting: Setting) -> bool:
    in_section = setting.name.split(".")[0] in SAMPLED_SECTIONS and setting.name not in FROM_GRIDS
    return in_section and (setting.type in (int, float, bool) or setting.choices is not None)


def _coerce_entry(setting: Setting, entry: Any) -> tuple[dict[str, Any], list[str]]:
    where = f"search.space.{setting.name}"
    named = dataclasses.replace(setting, name=where)
    if not isinstance(entry, Mapping) or not entry:
        return {}, [f"{where}: expected {_SPACE_FORMS}; got {describe(entry)}"]
    unknown = [key for key in entry if key not in ("low", "high", "log", "choices")]
    if unknown:
        offers = (nearest(str(key), ("low", "high", "log", "choices")) for key in unknown)
        return {}, [f"{where}: unknown key {key}{offer}" for key, offer in zip(unknown, offers, strict=True)]
    if "choices" in entry:
        return _coerce_choices(named, entry)
    return _coerce_range(named, entry)


def _coerce_choices(setting: Setting, entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    values = entry["choices"]
    if len(entry) > 1:
        return {}, [f"{setting.name}: choices cannot be combined with low, high or log"]
    if not isinstance(values, list | tuple) or not values:
        return {}, [f"{setting.name}: choices must be a list of values; got {describe(values)}"]
    pairs = [_coerce_scalar(setting, setting.type, value) for value in values]
    faults = [fault for _, fault in pairs if fault]
    converted = [value for value, _ in pairs]
    if not faults and len(set(converted)) != len(converted):
        faults = [f"{setting.name}: choices holds the same value twice: {describe(list(values))}"]
    return {"choices": converted}, faults


def _coerce_range(setting: Setting, entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    if setting.type not in (int, float):
        return {}, [
            f"{setting.name}: expected choices: [...], as it is no number; got {describe(dict(entry))}"
        ]
    missing = [key for key in ("low", "high") if key not in entry]
    if missing:
        return {}, [f"{setting.name}: {' and '.join(missing)} missing; expected {_SPACE_FORMS}"]
    low, low_fault = _coerce_scalar(setting, setting.type, entry["low"])
    high, high_fault = _coerce_scalar(setting, setting.type, entry["high"])
    faults = [fault for fault in (low_fault, high_fault) if fault]
    log = entry.get("log", False)
    if not isinstance(log, bool):
        faults.append(f"{setting.name}: log must be true or false; got {describe(log)}")
    if not faults and low >= high:
        faults = [f"{setting.name}: low must be below high; got low {low:g} and high {high:g}"]
    if not faults and log and low <= 0:
        faults = [f"{setting.name}: a logarithmic range must start above 0; got low {low:g}"]
    return {**entry, "low": low, "high": high}, faults
