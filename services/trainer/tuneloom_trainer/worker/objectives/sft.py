"""Supervised fine-tuning: the next token of every answer and of the stop that ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.training_events import DataReport
from tuneloom_trainer.worker.data.batches import IGNORED, Batch, PackedDataset, TrainingData
from tuneloom_trainer.worker.data.reading import read_examples
from tuneloom_trainer.worker.hardware import Hardware
from tuneloom_trainer.worker.preflight import Base


class SupervisedFineTuning:
    """See Objective."""

    def load(self, path: Path, base: Base, spec: TrainingSpec) -> TrainingData:
        examples = read_examples(
            path,
            base.tokenizer,
            stop_tokens=base.template.stop_tokens,
            max_length=spec.max_length,
            max_unusable_share=spec.max_unusable_share,
        )
        usable = examples.usable
        dataset = PackedDataset(usable, max_length=spec.max_length, packing=spec.packing, seed=spec.seed)
        report = DataReport(
            rows=len(usable) + len(examples.unusable),
            tokens=sum(len(example.tokens) for example in usable),
            trained_tokens=sum(sum(example.trained) for example in usable),
            truncated_rows=sum(example.truncated for example in usable),
            duplicate_rows=examples.duplicates,
            sequences=len(dataset),
            stop_token_trained=all(example.stop_token_trained for example in usable),
            unusable_rows=len(examples.unusable),
        )
        return TrainingData(dataset, report, examples.unusable)

    def summed_loss(self, model: Any, batch: Batch, hardware: Hardware) -> torch.Tensor:
        """Logits are computed only at positions where some row has a label."""
        device = hardware.device
        kept = (batch.labels != IGNORED).any(dim=0).nonzero().squeeze(1)
        with torch.autocast(device.type, dtype=hardware.dtype, enabled=hardware.dtype != torch.float32):
            logits = model(
                input_ids=batch.input_ids.to(device),
                position_ids=batch.position_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
                logits_to_keep=kept.to(device),
                use_cache=False,
            ).logits
        labels = batch.labels[:, kept].to(device)
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
