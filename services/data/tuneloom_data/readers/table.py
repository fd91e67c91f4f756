"""The table of readers, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping

from tuneloom_data.objectives import Objective
from tuneloom_data.readers.messages import Messages
from tuneloom_data.readers.reader import Reader, Row
from tuneloom_data.readers.recognised import RECOGNISED

READERS: Mapping[Objective, tuple[Reader, ...]] = {Objective.SFT: (Messages(), *RECOGNISED)}


def reader_for(value: Row, objective: Objective) -> Reader:
    """The reader that is surest of a row, the first of equals. Files may mix formats, so rows are asked one by one."""
    return max(READERS[objective], key=lambda reader: reader.sniff(value).confidence)
