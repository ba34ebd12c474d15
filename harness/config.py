"""From the conf/ tree and the command line to checked, built objects. Nothing else imports hydra and omegaconf."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

from harness.choices import Option, conf_dir, groups, meant, option_of, options_of, own_conf
from harness.contracts import RUNTIME, RequestError


@dataclass(frozen=True)
class Cell:
    """One point of a sweep: what sets it apart, the chosen file per group, and the whole resolved configuration."""

    label: str
    choices: Mapping[str, str]
    config: Mapping[str, Any]


def cells(name: str, overrides: Sequence[str], *, multirun: bool = False, config_dir: str | None = None) -> list[Cell]:
    """Compose `conf/<name>.yaml` with overrides: one cell, or all cells of a sweep. Raises RequestError.

    Every cell is composed before anything runs, so that a typing error in the last one costs nothing.
    """
    GlobalHydra.instance().clear()
    extra = [f"hydra.searchpath=[file://{own_conf(config_dir)}]"] if config_dir else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        parsed = _parse(overrides)
        fixed = [o for o in parsed if not o.is_sweep_override()]
        base = _compose(name, [*(_text(o) for o in fixed), *extra])
        params: Any = OmegaConf.to_container(base.hydra.sweeper.params) if base.hydra.sweeper.get("params") else {}
        if not (multirun or base.hydra.mode == RunMode.MULTIRUN):
            if sweeps := [_text(o) for o in parsed if o.is_sweep_override()]:
                raise RequestError(f"{sweeps[0]}: several values are a sweep; add -m, or quote a value with commas")
            return [_cell(base, [_text(o) for o in fixed])]
        constant = {_text(o) for o in fixed}
        typed = {o.key_or_group for o in parsed}
        axes = [f"{key}={value}" for key, value in params.items() if key not in typed]
        batches = distinct(BasicSweeper.split_arguments(_parse([*axes, *overrides]), max_batch_size=None)[0])
        return [_cell(_compose(name, [*b, *extra]), [text for text in b if text not in constant]) for b in batches]


def options(name: str, overrides: Sequence[str], schema: type) -> Any:
    """Values of a command that has no groups, `conf/<name>.yaml`, checked against a dataclass. Raises RequestError.

    hydra would take `dataset=NAME` for a choice of the group of that name.
    """
    values = {one.key: _value(one) for one in options_of(name)}
    for text in overrides:
        key, found, _ = text.partition("=")
        if not found or key not in values:
            raise RequestError(f"{text}: expected KEY=VALUE with one of {', '.join(values)}{meant(key, values)}")
        values[key] = OmegaConf.to_container(OmegaConf.from_dotlist([text]))[key]  # type: ignore[index,call-overload]
    check_values(schema, values, "")
    return schema(**values)


def default(name: str, key: str) -> Any:
    """The default of a command's option, for a command that uses it and does not offer it."""
    return _value(option_of(name, key))


def _value(option: Option) -> Any:
    return OmegaConf.to_container(OmegaConf.create(f"value: {option.default}"))["value"]  # type: ignore[index,call-overload]


def choice(group: str, name: str, config_dir: str | None = None) -> dict[str, Any]:
    """The values of one yaml of a group, such as the metric a protocol names. Raises RequestError."""
    override = f"{group}={name}" if group == "protocol" else f"+{group}={name}"
    return dict(cells("score", [override], config_dir=config_dir)[0].config[group])


def settings(cell: Cell, schema: type) -> Any:
    """The root-level values of a command, checked against a dataclass."""
    values = {f.name: cell.config[f.name] for f in fields(schema) if f.name in cell.config}
    check_values(schema, values, "")
    return schema(**values)


def build(cell: Cell, group: str) -> Any:
    """Build the object a group's yaml names, its values checked against the constructor. Raises RequestError."""
    return build_node(cell.config[group], group)


def build_node(node: Any, key: str) -> Any:
    """Build what a configuration node names in `_target_`. Raises RequestError with one clear line."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise RequestError(f"{key}: expected a mapping with `_target_: package.module.Class`, got {node!r}")
    values = {str(k): v for k, v in node.items() if not str(k).startswith("_")}
    target = _target(str(node["_target_"]), key)
    check_values(target, values, key)
    try:
        return instantiate(dict(node), _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, RequestError):  # the constructor's own check: its message is the clear one
            raise error.__cause__ from None
        raise


def identity_values(node: Mapping[str, Any]) -> dict[str, Any]:
    """A plug-in's class and its values, without those marked RUNTIME: what enters the hashes."""
    hints = _hints(_target(str(node["_target_"]), "_target_"))
    values = {k: v for k, v in node.items() if not str(k).startswith("_") and not is_runtime(hints.get(str(k)))}
    return {"class": node["_target_"], **values}


def is_runtime(hint: Any) -> bool:
    """Whether an annotation carries the RUNTIME mark."""
    return get_origin(hint) is Annotated and RUNTIME in get_args(hint)[1:]


def modules(cells: Iterable[Cell]) -> list[str]:
    """The modules of all classes that the cells name."""
    nodes = [node for cell in cells for node in cell.config.values() if isinstance(node, Mapping)]
    return sorted({str(node["_target_"]).rpartition(".")[0] for node in nodes if "_target_" in node})


def to_yaml(config: Mapping[str, Any]) -> str:
    """A resolved configuration as yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def check_values(target: Any, values: Mapping[str, Any], key: str) -> None:
    """Compare values with a constructor's parameters: unknown, missing and mistyped ones raise RequestError."""
    hints, key = _hints(target), f"{key}." if key else ""
    parameters = {n: p for n, p in inspect.signature(target).parameters.items() if n != "self"}
    for name, value in values.items():
        if name not in parameters:
            raise RequestError(
                f"{key}{name}: unknown key; expected one of {', '.join(parameters)}{meant(name, parameters)}"
            )
        _check_type(f"{key}{name}", value, hints.get(name))
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in values]
    if missing:
        raise RequestError(f"{key}{missing[0]}: no value; set it with {key}{missing[0]}=VALUE or in the yaml")


# ---------------------------------------------------------------- composition


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise RequestError(f"{text}: expected KEY=VALUE (for example model=smolvlm); see `capbench run --help`")
        try:
            parsed += parser.parse_overrides([text])
        except HydraException as error:
            raise RequestError(
                f"{text}: cannot be read ({_first_line(error)}); quote values with special characters: 'key=\"a, b\"'"
            ) from None
    return parsed


def _text(override: Override) -> str:
    return str(override.input_line)


def _compose(name: str, overrides: Sequence[str]) -> DictConfig:
    try:
        return compose(name, overrides=list(overrides), return_hydra_config=True)
    except MissingConfigException as error:
        raise _missing_choice(error) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise _wrong_override(error, name) from None


def _missing_choice(error: MissingConfigException) -> RequestError:
    group, _, choice = str(error.missing_cfg_file or "").rpartition("/")
    options = [o for o in (error.options or []) if o]
    known = f"; expected one of {', '.join(options)}{meant(choice, options)}" if options else ""
    return RequestError(f"{group or 'configuration'}={choice}: no such choice{known}")


def _wrong_override(error: Exception, name: str) -> RequestError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.split("'")[1] for line in lines if line.startswith("Could not override '")), "")
    if not key:
        return RequestError(" ".join(lines[:2]))
    known = [*groups(), *_flat(OmegaConf.to_container(compose(name)))]
    if key in known:  # of the default choice, but not of one that was asked for
        return RequestError(
            f"{key}: not every choice of '{key.partition('.')[0]}' in this request has this key; set it apart"
        )
    return RequestError(f"{key}: no such key{meant(key, known)}; `capbench run --cfg` prints all keys")


def _cell(composed: DictConfig, apart: list[str]) -> Cell:
    choices = {k: v for k, v in composed.hydra.runtime.choices.items() if v and not str(k).startswith("hydra")}
    plain = OmegaConf.masked_copy(composed, [str(k) for k in composed if k != "hydra"])
    absent = sorted(str(key) for key in OmegaConf.missing_keys(plain))
    if absent:
        raise RequestError(f"{absent[0]}: no value; set it with {absent[0]}=VALUE")
    try:
        config = OmegaConf.to_container(plain, resolve=True)
    except OmegaConfBaseException as error:
        raise RequestError(_first_line(error)) from None
    assert isinstance(config, dict)
    return Cell(" ".join(apart) or "the default cell", choices, {str(k): v for k, v in config.items()})


def _flat(config: Any, key: str = "") -> list[str]:
    if not isinstance(config, dict):
        return [key]
    return [leaf for k, v in config.items() for leaf in _flat(v, f"{key}.{k}" if key else str(k))]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


# ---------------------------------------------------------------- types

OUTSIDE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
BOUNDS: dict[type, str] = {
    Gt: "more than {0.gt}",
    Ge: "{0.ge} or more",
    Lt: "less than {0.lt}",
    Le: "{0.le} or less",
    Interval: "{0.ge} to {0.le}",
}


def _target(path: str, key: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        found = import_module(module)
    except (ImportError, ValueError, SyntaxError, NameError, AttributeError, TypeError) as error:
        reason = f"cannot be imported ({_first_line(error)}); a file of your own must be on PYTHONPATH"
        raise RequestError(f"{key}._target_={path}: {reason}") from None
    if not hasattr(found, name):
        raise RequestError(f"{key}._target_={path}: {module} has no {name}{meant(name, dir(found))}")
    return getattr(found, name)


def _hints(target: Any) -> dict[str, Any]:
    return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)


def _check_type(key: str, value: Any, hint: Any) -> None:
    if hint is None:
        return
    try:
        TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] in OUTSIDE:
            raise RequestError(f"{key}: expected {' and '.join(_bounds(hint))}, got {value!r}") from None
        raise RequestError(f"{key}: expected {_type_name(hint)}, got {value!r} ({problem['msg']})") from None


def _bounds(hint: Any) -> list[str]:
    """The ranges that an annotation states, in words."""
    own = [BOUNDS[type(hint)].format(hint)] if type(hint) in BOUNDS else []
    return own + [words for part in get_args(hint) for words in _bounds(part)]


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _type_name(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(_type_name, get_args(hint)))
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"NoneType|None", "null", re.sub(r"typing\.|collections\.abc\.", "", text))


IDLE = {"model", "lora", "prompt", "modality", "train", "generate", "seed", "blank"}
"""What has no part in a control."""


def distinct(batches: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells of a sweep, each a list of overrides: a sweep over ten models makes each control once.

    The controls of a sweep with captioners lose all that is meant for these, blank=true included.
    """
    if not any(_control(batch) == "none" for batch in batches):
        return [list(batch) for batch in batches]
    used = [
        tuple(text for text in batch if _control(batch) == "none" or _key(text).partition(".")[0] not in IDLE)
        for batch in batches
    ]
    return [list(batch) for batch in dict.fromkeys(used)]


def _control(batch: Sequence[str]) -> str:
    named = [text.partition("=")[2].strip("'\"") for text in batch if _key(text) == "control"]
    return named[-1] if named else "none"


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]
