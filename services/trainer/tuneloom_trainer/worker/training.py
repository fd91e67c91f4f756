"""The training loop. Straight down: load, check, resume, step, save.

The loss is the mean over all trained tokens of an optimizer step, whatever the micro-batches: each micro-batch's
summed loss is divided by the step's token count, so accumulation changes nothing but memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tuneloom_common.manifests import Template
from tuneloom_data.templates import read_template
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.training_events import Note, Progress, SampleChat
from tuneloom_trainer.worker import checkpoints
from tuneloom_trainer.worker.checkpoint_records import CheckpointRecord, newest_whole
from tuneloom_trainer.worker.dataset import IGNORED, Batch, PackedDataset, derived_seed, load_dataset
from tuneloom_trainer.worker.model import Hardware, load_model, load_tokenizer, trainable_parameters
from tuneloom_trainer.worker.protocol import (
    CHECKPOINTS_DIR,
    EXIT_DONE,
    EXIT_STOPPED,
    CheckpointSaved,
    EventLog,
    Finished,
    Training,
    Validated,
    WorkerFailed,
    WorkerSpec,
)
from tuneloom_trainer.worker.sampling import sample_chats

ADAM_BETAS = (0.9, 0.999)
FEW_STEPS = 20


def train(spec: WorkerSpec, run_dir: Path, events: EventLog, should_stop: Callable[[], bool]) -> int:
    """Runs or resumes one job; returns the worker's exit status. Raises WorkerFailed on hopeless input."""
    training = spec.training
    hardware = Hardware.detect(spec.device)
    try:
        template = read_template(spec.base_dir)
    except ValueError as error:
        raise WorkerFailed("BASE_MODEL", f"base model: {error}") from error
    tokenizer = load_tokenizer(spec.base_dir)
    dataset, report = load_dataset(
        spec.dataset,
        tokenizer,
        stop_tokens=template.stop_tokens,
        max_length=training.max_length,
        packing=training.packing,
        seed=training.seed,
    )
    events.emit(report)
    events.emit(Validated())

    model = load_model(spec.base_dir, training, hardware)
    parameters = trainable_parameters(model)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=training.learning_rate, betas=ADAM_BETAS, weight_decay=training.weight_decay
    )
    total_steps = count_steps(training, len(dataset))
    directory = run_dir / CHECKPOINTS_DIR
    directory.mkdir(exist_ok=True)
    done = 0
    if checkpoint := newest_whole(directory, job=spec.job):
        checkpoints.restore(checkpoint, parameters, optimizer)
        done = checkpoint.record.step
        events.emit(Note(text=f"resumed from the checkpoint at step {done}"))
        if done > spec.registered_step:  # saved by an attempt that died before anybody heard of it
            path = checkpoint.path.relative_to(run_dir).as_posix()
            last = done == total_steps
            events.emit(CheckpointSaved(step=done, loss=checkpoint.record.loss, path=path, last=last))

    def save(step: int, loss: float, *, stopping: bool) -> None:
        path = checkpoints.save(
            directory,
            parameters=parameters,
            optimizer=optimizer,
            adapter_config=_adapter_config(model),
            record=CheckpointRecord(
                job=spec.job,
                lease_epoch=spec.lease_epoch,
                step=step,
                total_steps=total_steps,
                loss=loss,
                method=training.tuning,
                template=Template(**asdict(template)),
            ),
        )
        relative = path.relative_to(run_dir).as_posix()
        events.emit(CheckpointSaved(step=step, loss=loss, path=relative, last=step == total_steps))
        prompts = () if stopping else training.sample_prompts  # a stop has little time
        for prompt, answer in sample_chats(model, tokenizer, prompts):
            events.emit(SampleChat(step=step, prompt=prompt, answer=answer))

    if done == 0 and total_steps < FEW_STEPS:
        events.emit(
            Note(
                text=f"only {total_steps} optimizer steps: {report.rows} rows fit into {report.sequences} sequences of "
                f"{training.max_length} tokens; the model will hardly change, raise num_epochs or set max_steps",
            )
        )
    events.emit(Training(step=done, total_steps=total_steps, device=str(hardware.device)))
    meter = Meter(total_steps, done)
    micro_batches = _micro_batches(dataset, training, first_step=done)
    for step in range(done + 1, total_steps + 1):
        torch.manual_seed(derived_seed(training.seed, step))  # dropout is a function of (seed, step)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * learning_rate_factor(training, step, total_steps)
        batches = next(micro_batches)
        loss = _step(model, optimizer, parameters, batches, training, hardware)
        if not math.isfinite(loss):
            raise WorkerFailed(
                "NON_FINITE_LOSS",
                f"the loss or its gradient became {loss} at step {step}; lower spec.learning_rate (now "
                f"{training.learning_rate:g}) and submit again, the checkpoints before it are kept",
            )
        meter.add(batches, loss)
        if step % training.logging_steps == 0 or step == total_steps:
            epoch = step / count_steps_per_epoch(training, len(dataset))
            events.emit(meter.report(step, learning_rate=optimizer.param_groups[0]["lr"], epoch=epoch))
        stopping = should_stop() and step < total_steps
        due = training.save_steps and step % training.save_steps == 0
        if due or stopping or step == total_steps:
            save(step, loss, stopping=stopping)
        if stopping:
            events.emit(Note(text=f"stopped on request, saved at step {step}"))
            return EXIT_STOPPED
    events.emit(Finished(step=total_steps))
    return EXIT_DONE


class Meter:
    """Loss, speed and time to go, since the last report. Times in seconds of the monotonic clock."""

    def __init__(self, total_steps: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total_steps, clock
        self._started, self._first = clock(), done
        self._reset()

    def _reset(self) -> None:
        self._since, self._tokens, self._trained, self._loss_sum = self._clock(), 0, 0, 0.0

    def add(self, batches: list[Batch], loss: float) -> None:
        trained = sum(batch.trained_tokens for batch in batches)
        self._tokens += sum(batch.tokens for batch in batches)
        self._trained += trained
        self._loss_sum += loss * trained

    def report(self, step: int, *, learning_rate: float, epoch: float) -> Progress:
        now = self._clock()
        pace = (now - self._started) / max(1, step - self._first)
        progress = Progress(
            step=step,
            total_steps=self._total,
            loss=self._loss_sum / max(1, self._trained),
            learning_rate=learning_rate,
            tokens_per_second=self._tokens / max(1e-9, now - self._since),
            eta_seconds=pace * (self._total - step),
            epoch=epoch,
        )
        self._reset()
        return progress


def count_steps(spec: TrainingSpec, sequences: int) -> int:
    """Optimizer steps of the whole job."""
    if spec.max_steps:
        return spec.max_steps
    return max(1, math.ceil(spec.num_epochs * count_steps_per_epoch(spec, sequences)))


def count_steps_per_epoch(spec: TrainingSpec, sequences: int) -> float:
    return math.ceil(sequences / spec.batch_size) / spec.gradient_accumulation_steps


def learning_rate_factor(spec: TrainingSpec, step: int, total_steps: int) -> float:
    """Share of the peak learning rate at a step counted from 1: linear warm-up, then the schedule."""
    warmup = math.ceil(spec.warmup_ratio * total_steps)
    if step <= warmup:
        return step / warmup
    if spec.lr_scheduler == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total_steps - warmup)
    if spec.lr_scheduler == "linear":
        return max(1 - progress, 1 / max(1, total_steps))
    return 0.5 * (1 + math.cos(math.pi * progress * (1 - 1e-3)))


def _micro_batches(dataset: PackedDataset, spec: TrainingSpec, *, first_step: int) -> Iterator[list[Batch]]:
    accumulation = spec.gradient_accumulation_steps
    batches = dataset.batches(first_batch=first_step * accumulation, batch_size=spec.batch_size)
    while True:
        yield list(islice(batches, accumulation))


def _step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, torch.nn.Parameter],
    batches: list[Batch],
    spec: TrainingSpec,
    hardware: Hardware,
) -> float:
    """One optimizer step; returns the mean loss per trained token over all its micro-batches."""
    trained_tokens = sum(batch.trained_tokens for batch in batches)
    total = 0.0
    for batch in batches:
        loss = _summed_loss(model, batch, hardware) / trained_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), spec.max_grad_norm or math.inf)
    if not torch.isfinite(norm):
        return math.nan  # a finite loss with such a gradient would ruin the weights all the same
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _summed_loss(model: Any, batch: Batch, hardware: Hardware) -> torch.Tensor:
    """Sum of the token losses. Logits are computed only at positions where some row has a label."""
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


def _adapter_config(model: Any) -> dict[str, Any] | None:
    """PEFT's own description of the adapter, None for a full fine-tune."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        return None
    fields: dict[str, Any] = configs["default"].to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in fields.items()}
