"""What options mean: `--set key=value` by the names in the contract, and sizes."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tuneloom_common.errors import InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec


def parse_overrides(settings: Iterable[str], sample_prompts: Iterable[str] = ()) -> TrainingSpec:
    """A TrainingSpec with the given fields set; raises InvalidArgument naming an unknown option or a bad value."""
    from google.protobuf.json_format import ParseDict, ParseError

    from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec

    spec = TrainingSpec(sample_prompts=sample_prompts)
    known = _options()
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise InvalidArgument(f"--set {setting}: write it as option=value, for example learning_rate=1e-4")
        if path not in known:
            near = get_close_matches(path, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "'tuneloom jobs recipes' shows the options"
            raise InvalidArgument(f"--set {setting}: there is no option {path!r}; {hint}")
        field = known[path]
        value: Any = _value(field, text)
        for part in reversed(path.split(".")):
            value = {part: value}
        try:
            ParseDict(value, spec)
        except ParseError as error:
            choices = f"; choose one of {', '.join(_choices(field))}" if field.enum_type else ""
            raise InvalidArgument(f"--set {setting}: {text!r} is not a value for {path}{choices}") from error
    return spec


def option_names() -> list[str]:
    """Every option, nested ones with a dot."""
    return list(_options())


def spec_options(spec: Message) -> dict[str, Any]:
    """A spec's set fields as plain values, by the names `--set` knows; nested messages as dicts."""
    shown: dict[str, Any] = {}
    for field, value in spec.ListFields():
        if field.GetOptions().deprecated:
            continue
        if field.message_type is not None:
            shown[field.name] = spec_options(value)
        elif field.enum_type is not None:
            shown[field.name] = field.enum_type.values_by_number[value].name.removeprefix(_prefix(field)).lower()
        else:
            shown[field.name] = list(value) if field.is_repeated else value
    return shown


def parse_size(text: str) -> int:
    """Bytes from "2GB", "500MB" or a plain number."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "": 1}
    number = text.upper().rstrip("KMGB")
    unit = text.upper()[len(number) :]
    try:
        size = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise InvalidArgument(f"--max-shard-size {text}: write it as 2GB, 500MB or a number of bytes") from None
    if size <= 0:
        raise InvalidArgument(f"--max-shard-size {text}: must be positive")
    return size


def _options() -> dict[str, Any]:
    """Every option's field in the contract, by its name."""
    from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec

    options: dict[str, Any] = {}
    for field in TrainingSpec.DESCRIPTOR.fields:
        if field.message_type is None:
            options[field.name] = field
        else:
            options |= {f"{field.name}.{inner.name}": inner for inner in field.message_type.fields}
    return options


def _choices(field: Any) -> list[str]:
    return [value.name.removeprefix(_prefix(field)).lower() for value in field.enum_type.values if value.number]


def _prefix(field: Any) -> str:
    name: str = field.enum_type.values_by_number[0].name
    return name.removesuffix("UNSPECIFIED")


def _value(field: Any, text: str) -> Any:
    if field.enum_type:
        return f"{_prefix(field)}{text}".upper()
    if field.name == "sample_prompts":  # a prompt may hold commas
        return [text]
    if field.is_repeated:
        return [part for part in text.split(",") if part]
    if text in ("true", "false"):
        return text == "true"
    return text
