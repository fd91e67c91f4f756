"""The training loop. Straight down: check, load, resume, step, save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tuneloom_trainer.training_events import Note
from tuneloom_trainer.worker.checkpoints import Checkpoints
from tuneloom_trainer.worker.data.batches import TrainingData
from tuneloom_trainer.worker.data.order import Share
from tuneloom_trainer.worker.data.reading import named
from tuneloom_trainer.worker.hardware import Hardware
from tuneloom_trainer.worker.learner import Learner
from tuneloom_trainer.worker.meter import Meter
from tuneloom_trainer.worker.objectives import OBJECTIVES
from tuneloom_trainer.worker.preflight import read_base
from tuneloom_trainer.worker.protocol import (
    EXIT_DONE,
    EXIT_STOPPED,
    Events,
    Finished,
    Training,
    Validated,
    WorkerSpec,
)
from tuneloom_trainer.worker.sampling import Sampler
from tuneloom_trainer.worker.schedule import Schedule
from tuneloom_trainer.worker.strategies import Strategy
from tuneloom_trainer.worker.strategies.single import Single

FEW_STEPS = 20


def train(
    spec: WorkerSpec,
    run_dir: Path,
    events: Events,
    should_stop: Callable[[], bool],
    strategy: Strategy | None = None,
) -> int:
    """Runs or resumes one job; returns the worker's exit status. Raises WorkerFailed on hopeless input."""
    training = spec.training
    strategy = strategy or Single(Hardware.detect(spec.device))
    objective = OBJECTIVES[training.objective]
    base = read_base(spec.base_dir)
    data = objective.load(spec.dataset, base, training)
    _tell_data(data, events)

    learner = Learner.load(spec.base_dir, training, objective=objective, strategy=strategy)
    schedule = Schedule(training, len(data.dataset))
    total_steps = schedule.total_steps
    checkpoints = Checkpoints(run_dir, spec, events, strategy, template=base.template, total_steps=total_steps)
    done = checkpoints.resume(learner)
    if done == 0 and total_steps < FEW_STEPS:
        _tell_few_steps(total_steps, data, training.max_length, events)

    events.emit(Training(step=done, total_steps=total_steps, device=str(strategy.hardware.device)))
    sampler = Sampler(training, base.tokenizer, events, total_steps=total_steps)
    meter = Meter(total_steps, done)
    steps = data.dataset.steps(
        batch_size=training.batch_size,
        accumulation=training.gradient_accumulation_steps,
        done=done,
        share=Share(strategy.rank, strategy.world_size),
    )
    for step in range(done + 1, total_steps + 1):
        learning_rate = schedule.learning_rate(step)
        result = learner.step(step, next(steps), learning_rate=learning_rate)
        meter.add(result)
        if schedule.reports(step):
            events.emit(meter.report(step, learning_rate=learning_rate, epoch=schedule.epoch(step)))
        stopping = strategy.total(should_stop()) > 0 and step < total_steps
        saving = stopping or schedule.saves(step)
        if saving:
            checkpoints.save(learner, step=step, loss=result.loss)
        if stopping:
            events.emit(Note(text=f"stopped on request, saved at step {step}"))
            return EXIT_STOPPED
        if sampler.due(step, saved=saving):
            sampler.sample(learner.model, step)
    events.emit(Finished(step=total_steps))
    return EXIT_DONE


def _tell_data(data: TrainingData, events: Events) -> None:
    events.emit(data.report)
    if data.unusable_rows:
        events.emit(
            Note(
                text=f"{named(data.unusable_rows)} left out: no answer remains within max_length; the other "
                f"{data.report.rows - len(data.unusable_rows)} rows are trained on"
            )
        )
    events.emit(Validated())


def _tell_few_steps(total_steps: int, data: TrainingData, max_length: int, events: Events) -> None:
    rows = data.report.rows - len(data.unusable_rows)
    events.emit(
        Note(
            text=f"only {total_steps} optimizer steps: {rows} rows fit into {data.report.sequences} sequences of "
            f"{max_length} tokens; the model will hardly change, raise num_epochs or set max_steps"
        )
    )
