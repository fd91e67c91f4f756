"""`--set key=value`: training options by their names in the contract."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tuneloom_common.errors import InvalidArgument

CHOICES = {"method": ("lora", "full"), "quantization": ("none", "nf4")}

if TYPE_CHECKING:
    from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec


def parse_overrides(settings: Iterable[str], sample_prompts: Iterable[str] = ()) -> TrainingSpec:
    """A TrainingSpec with the given fields set; raises InvalidArgument naming an unknown option or a bad value."""
    from google.protobuf.json_format import ParseDict, ParseError

    from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec

    spec = TrainingSpec(sample_prompts=sample_prompts)
    known = option_names()
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise InvalidArgument(f"--set {setting}: write it as option=value, for example learning_rate=1e-4")
        if path not in known:
            near = get_close_matches(path, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "'tuneloom jobs recipes' shows the options"
            raise InvalidArgument(f"--set {setting}: there is no option {path!r}; {hint}")
        value: Any = _value(path, text)
        for part in reversed(path.split(".")):
            value = {part: value}
        try:
            ParseDict(value, spec)
        except ParseError as error:
            choices = f"; choose one of {', '.join(CHOICES[path])}" if path in CHOICES else ""
            raise InvalidArgument(f"--set {setting}: {text!r} is not a value for {path}{choices}") from error
    return spec


def option_names() -> list[str]:
    """Every option, nested ones with a dot."""
    from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec

    names = []
    for field in TrainingSpec.DESCRIPTOR.fields:
        if field.message_type is not None:
            names += [f"{field.name}.{inner.name}" for inner in field.message_type.fields]
        else:
            names.append(field.name)
    return names


def _value(path: str, text: str) -> Any:
    if path in CHOICES:
        return f"{path}_{text}".upper()
    if path.endswith("target_modules"):
        return [part for part in text.split(",") if part]
    if path == "sample_prompts":
        return [text]
    if text in ("true", "false"):
        return text == "true"
    return text
