"""`--set key=value`: training options by their names in the contract."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tuneloom_common.errors import InvalidArgument

if TYPE_CHECKING:
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
