"""The data contract at token level: which rows of a file a job trains on, and what is said about the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloom_data.contract import check_file, fingerprint
from tuneloom_data.conversations import Conversation
from tuneloom_data.formats import read_conversations
from tuneloom_trainer.worker.data.rendering import Example, render
from tuneloom_trainer.worker.data.time_limit import TookTooLong, cpu_time_limit
from tuneloom_trainer.worker.protocol import WorkerFailed

ROWS_NAMED = 20
ROW_SECONDS = 10.0  # of CPU time; a row takes milliseconds


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows as tokens. `unusable` are the numbers of rows without a trained token left after cutting."""

    usable: tuple[Example, ...]
    unusable: tuple[int, ...]
    duplicates: int


def read_examples(
    path: Path,
    tokenizer: Any,
    *,
    stop_tokens: Sequence[str],
    max_length: int,
    max_unusable_share: float,
    row_seconds: float = ROW_SECONDS,
) -> Examples:
    """Raises WorkerFailed naming the rows when the file cannot be trained on."""
    contract = check_file(path)
    if not contract.passed:
        raise WorkerFailed("DATA_CONTRACT", f"{contract.summary()}; mend them and upload the file again")
    rendered, seen = [], set()
    for conversation in read_conversations(path):
        if isinstance(conversation, Conversation):
            seen.add(fingerprint(conversation))
            with _ends_within(row_seconds, conversation):
                rendered.append(render(conversation, tokenizer, stop_tokens=stop_tokens, max_length=max_length))
    usable = tuple(example for example in rendered if any(example.trained[1:]))
    unusable = tuple(example.row for example in rendered if not any(example.trained[1:]))
    if not usable or len(unusable) > max_unusable_share * len(rendered):
        raise WorkerFailed(
            "DATA_CONTRACT",
            f"{len(unusable)} of {len(rendered)} rows have no answer left within max_length={max_length} tokens, more "
            f"than max_unusable_share={max_unusable_share:g}: {named(unusable)}; raise spec.max_length, shorten the "
            "rows, or raise spec.max_unusable_share to train without them",
        )
    _require_stops(usable, max_length)
    return Examples(usable, unusable, duplicates=len(rendered) - len(seen))


@contextmanager
def _ends_within(seconds: float, conversation: Conversation) -> Iterator[None]:
    try:
        with cpu_time_limit(seconds):
            yield
    except TookTooLong:
        raise WorkerFailed(
            "CHAT_TEMPLATE",
            f"row {conversation.row}: the base's chat template did not end within {seconds:g} s; use a base with a "
            "template that does, or remove the row",
        ) from None


def named(rows: Sequence[int]) -> str:
    """Row numbers for a sentence."""
    more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:ROWS_NAMED]))}{more}"


def _require_stops(examples: Sequence[Example], max_length: int) -> None:
    if not any(example.stops for example in examples):
        raise WorkerFailed(
            "STOP_TOKEN",
            f"every answer is cut before its stop token at max_length={max_length}, so the model would never learn to "
            "stop; raise spec.max_length or shorten the rows",
        )
    unstopped = [example.row for example in examples if not example.stop_token_trained]
    if unstopped:
        raise WorkerFailed(
            "STOP_TOKEN",
            f"the chat template ends the answer of row {unstopped[0]} ({len(unstopped)} rows in all) without a stop "
            "token, so the model would never learn to stop; use a base whose template closes assistant turns",
        )
