"""What training tells that a job's watchers see as it is. Fields as in the contract's messages of the same names.

Readers are tolerant: fields of newer releases are passed over, fields that older ones did not write are zero. Workers
may be anybody's: a number the contract does not hold is refused, a text is cut and made sound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

MAX_COUNT = 2**31 - 1
MAX_TEXT_BYTES = 64 << 10
CUT = " … (cut)"
_UNSOUND = re.compile("[\0\ud800-\udfff]")


def cut(text: str, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Its beginning, as every database and encoding keeps it: without null bytes and halves of surrogate pairs."""
    sound = _UNSOUND.sub("\ufffd", text[: max_bytes + 1])
    data = sound.encode()
    if len(data) <= max_bytes:
        return sound
    return data[: max_bytes - len(CUT.encode())].decode(errors="ignore") + CUT


Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
LargeCount = Annotated[int, Field(ge=0, le=2**63 - 1)]
Text = Annotated[str, BeforeValidator(lambda value: cut(value) if isinstance(value, str) else value)]


class EventBody(BaseModel):
    """A kind of event; `kind` is its name in stored events, in the worker's log and in the contract."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    kind: ClassVar[str]


class Progress(EventBody):
    kind: ClassVar[str] = "progress"
    step: Count
    total_steps: Count = 0
    loss: float = 0.0
    learning_rate: float = 0.0
    tokens_per_second: float = 0.0
    eta_seconds: float = 0.0
    epoch: float = 0.0

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> Self:
        """As any release stored it; what does not fit is zero."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            unfit = {problem["loc"][0] for problem in error.errors(include_input=False, include_context=False)}
            return cls.model_validate({"step": 0, **{key: values[key] for key in values.keys() - unfit}})


class SampleChat(EventBody):
    kind: ClassVar[str] = "sample_chat"
    step: Count
    prompt: Text
    answer: Text


class DataReport(EventBody):
    kind: ClassVar[str] = "data_report"
    rows: LargeCount = 0
    tokens: LargeCount = 0
    trained_tokens: LargeCount = 0
    truncated_rows: LargeCount = 0
    duplicate_rows: LargeCount = 0
    sequences: LargeCount = 0
    stop_token_trained: bool = False
    unusable_rows: LargeCount = 0


class Note(EventBody):
    kind: ClassVar[str] = "note"
    text: Text
