"""Real jobs in flight, each acknowledged once and into an output model of its own; chats beside them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec
from tuneloom_cli.artifacts import upload_dataset
from tuneloom_cli.clients import Services
from tuneloom_cli.options import parse_overrides
from tuneloom_client.jobs import Job, JobRequest
from tuneloom_common.errors import TuneloomError, Unavailable

STEPS, SAVE_STEPS = 24, 6
PAUSE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What the trainer has answered to a request."""

    request_id: str
    job: str
    wanted: JobRequest


@dataclass
class Load:
    """`wanted` unfinished jobs at any time until `stop` is set; `more` asks for one more."""

    services: Services
    directory: Path
    wanted: int
    prefix: str
    acknowledged: list[Acknowledged] = field(default_factory=list)
    states: dict[str, Job] = field(default_factory=dict)
    creating: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    chats: Counter[str] = field(default_factory=Counter)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Keeps the jobs coming; returns when the last creation after `stop` is acknowledged."""
        while not self.stop.is_set():
            await self.look()
            if len(self.unfinished()) < self.wanted + self.more.is_set():
                await self.create()
                self.more.clear()
            else:
                await asyncio.sleep(PAUSE_SECONDS)

    def unfinished(self) -> list[str]:
        return [each.job for each in self.acknowledged if not (job := self.states.get(each.job)) or not job.state.final]

    async def look(self) -> None:
        with suppress(Unavailable):
            self.states = {job.name: job for job in await self.services.trainer.jobs(at_most=1000)}

    async def create(self) -> Acknowledged:
        """Uploads data and submits, again and again under one request id until it is acknowledged."""
        number = len(self.acknowledged) + 1
        name = f"{self.prefix}-{number}"
        wanted = JobRequest("seed", f"datasets/{name}", f"models/{name}", "qlora", spec(), merge=True)
        file = await asyncio.to_thread(self._rows, name, number)
        self.creating += 1
        try:
            while True:
                try:
                    await upload_dataset(self.services.registry, name, file)
                    job = await self.services.trainer.create_job(wanted, request_id=f"request-{name}")
                    break
                except TuneloomError as error:
                    self.refused[f"{type(error).__name__}: {str(error)[:90]}"] += 1
                    await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self.creating -= 1
        self.acknowledged.append(Acknowledged(f"request-{name}", job.name, wanted))
        print(f"{time.strftime('%H:%M:%S')} acknowledged {job.name} -> {job.output_model}", flush=True)
        return self.acknowledged[-1]

    async def chat(self, *, every_seconds: float) -> None:
        """One short chat after another until cancelled: they keep an engine there to be killed."""
        connection = self.services.connection
        headers = {"authorization": f"Bearer {connection.api_key}"}
        body = {"model": "seed", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 4}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=120)) as session:
            while True:
                try:
                    async with session.post(f"{connection.gateway}/v1/chat/completions", json=body) as answer:
                        await answer.read()
                        self.chats[str(answer.status)] += 1
                except (aiohttp.ClientError, TimeoutError) as error:
                    self.chats[type(error).__name__] += 1
                await asyncio.sleep(every_seconds)

    def _rows(self, name: str, number: int) -> Path:
        from tuneloom_data.synth import self_cognition

        rows = self_cognition(name=f"Nova {number}", author="Acme Labs", rows=3000, mix=[], mix_share=0.0, seed=number)
        path = self.directory / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path


def spec() -> TrainingSpec:
    """A small job with several checkpoints."""
    settings = {
        "max_steps": STEPS, "save_steps": SAVE_STEPS, "logging_steps": 1, "max_length": 128, "batch_size": 1,
        "lora.r": 8, "learning_rate": 2e-3,
    }  # fmt: skip
    return parse_overrides([f"{name}={value}" for name, value in settings.items()], ())
