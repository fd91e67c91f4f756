"""What training tells that a job's watchers see as it is. Fields as in the contract's messages of the same names.

Readers are tolerant: fields of newer releases are passed over, fields that older ones did not write are zero.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class EventBody(BaseModel):
    """A kind of event; `kind` is its name in stored events, in the worker's log and in the contract."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    kind: ClassVar[str]


class Progress(EventBody):
    kind: ClassVar[str] = "progress"
    step: int
    total_steps: int = 0
    loss: float = 0.0
    learning_rate: float = 0.0
    tokens_per_second: float = 0.0
    eta_seconds: float = 0.0
    epoch: float = 0.0


class SampleChat(EventBody):
    kind: ClassVar[str] = "sample_chat"
    step: int
    prompt: str
    answer: str


class DataReport(EventBody):
    kind: ClassVar[str] = "data_report"
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated_rows: int = 0
    duplicate_rows: int = 0
    sequences: int = 0
    stop_token_trained: bool = False
    unusable_rows: int = 0


class Note(EventBody):
    kind: ClassVar[str] = "note"
    text: str
