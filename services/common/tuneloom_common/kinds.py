"""The kinds of artifacts, and what each can be used for."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """`adapter` updates a base; `checkpoint` is what a trainer resumes from, not yet what an engine reads."""

    DATASET = "dataset"
    BASE = "base"
    ADAPTER = "adapter"
    MERGED = "merged"
    CHECKPOINT = "checkpoint"

    @property
    def full_weights(self) -> bool:
        """A whole model: an engine loads it by itself."""
        return self in (Kind.BASE, Kind.MERGED)

    @property
    def servable(self) -> bool:
        """Answers requests, by itself or on its base."""
        return self.full_weights or self is Kind.ADAPTER

    @property
    def trainable(self) -> bool:
        """May be the base of a training job."""
        return self.full_weights
