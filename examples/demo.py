"""The demo: from an empty machine to a fine-tuned, merged, proven and served model.

Starts every service, makes a self-cognition dataset, checks and uploads it, trains an adapter on the seed model,
merges and proves it, asks base, adapter and merged model the same held-out questions, prints them side by side,
and fails when the fine-tune is not what it should be.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table

from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec
from tuneloom_cli.clients import Services, connect
from tuneloom_cli.local.home import Home
from tuneloom_cli.progress import follow
from tuneloom_client.jobs import Job, JobRequest, JobState, Progress
from tuneloom_common.manifests import Proof

ROOT = Path(__file__).resolve().parents[1]
SEED_MODEL = ROOT / "models" / "seed"
BASE, OUTPUT, DATASET = "seed", "nova", "self-cognition"
NAME, AUTHOR = "Nova", "Acme Labs"
ROWS, MIX_SHARE = 600, 0.5
OPTIONS: dict[str, Any] = {
    "max_steps": 160,
    "learning_rate": 1e-3,
    "max_length": 256,
    "batch_size": 4,
    "save_steps": 80,
    "sample_prompts": ["Who are you?", "你是谁？"],
}
NEEDED_IDENTITY = 5
NEEDED_KEPT = 0.8
NEEDED_SECONDS = 10.0

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out prompt; an answer that contains one of `expect` is right for the base model."""

    skill: str
    prompt: str
    expect: tuple[str, ...]

    def right(self, answer: str) -> bool:
        return any(text.lower() in answer.lower() for text in self.expect)


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer: its text and its token ids."""

    text: str
    tokens: tuple[int, ...]


def main() -> int:
    started = time.monotonic()
    command("up", "--detach")
    data = Home.locate().path / "demo" / "self-cognition.jsonl"
    data.parent.mkdir(parents=True, exist_ok=True)
    command(
        *("data", "synth", "self-cognition", "--name", NAME, "--author", AUTHOR, "--output", str(data)),
        *("--rows", str(ROWS), "--mix", str(SEED_MODEL / "ordinary.jsonl"), "--mix-share", str(MIX_SHARE)),
    )
    command("data", "check", str(data))
    command("data", "upload", str(data), "--name", DATASET)
    questions = held_out(data)
    good = asyncio.run(fine_tune(questions))
    console.print(f"\n[dim]the demo took {time.monotonic() - started:.0f} s[/]")
    return 0 if good else 1


def command(*arguments: str) -> None:
    """Runs one tuneloom command in view; the demo ends when it fails."""
    console.print(f"\n[bold]$ tuneloom {' '.join(arguments)}[/]", soft_wrap=True)
    done = subprocess.run([sys.executable, "-m", "tuneloom_cli", *arguments], check=False)
    if done.returncode:
        raise SystemExit(f"'tuneloom {arguments[0]}' failed; 'tuneloom doctor' may know why")


def held_out(data: Path) -> list[Question]:
    """The questions, after making sure that none of them is in the data."""
    questions = []
    for line in (SEED_MODEL / "heldout.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        questions.append(Question(row["skill"], row["prompt"], tuple(row["expect"])))
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    seen = {message["content"] for row in rows for message in row["messages"] if message["role"] == "user"}
    leaked = [question.prompt for question in questions if question.prompt in seen]
    if leaked:
        raise SystemExit(f"held-out prompts are in the training data: {leaked}")
    return questions


async def fine_tune(questions: list[Question]) -> bool:
    """Trains, merges, asks and judges."""
    connection = Home.locate().connection()
    client = AsyncOpenAI(base_url=f"{connection.gateway}/v1", api_key=connection.api_key, timeout=600)
    async with connect(connection) as services, client:
        console.print("\n[bold]asking the base model[/]")
        before = await ask(client, BASE, questions)
        console.print("\n[bold]training[/]")
        job = await submit(services)
        first_answer = asyncio.create_task(time_to_first_answer(services, client, job.name))
        job = await follow(services, job.name)
        if job.state is not JobState.SUCCEEDED:
            first_answer.cancel()
            raise SystemExit(f"the job ended without a result: {job.error}")
        seconds = await first_answer
        adapter, merged = public_name(job.result_version), public_name(job.merged_version)
        console.print(f"\n[bold]asking {adapter} (adapter) and {merged} (merged)[/]")
        with_adapter = await ask(client, adapter, questions)
        with_merge = await ask(client, merged, questions)
        proof = await proof_of(services, job.merged_version)
    show(questions, before, with_adapter, with_merge)
    good = judge(questions, before, with_adapter, with_merge, seconds, proof)
    how_to_go_on(connection.gateway, adapter)
    return good


async def submit(services: Services) -> Job:
    return await services.trainer.create_job(
        JobRequest(
            base_model=BASE,
            dataset=f"datasets/{DATASET}",
            output_model=f"models/{OUTPUT}",
            recipe="qlora",
            spec=TrainingSpec(**OPTIONS),
            merge=True,
        )
    )


async def time_to_first_answer(services: Services, client: AsyncOpenAI, job: str) -> float:
    """Seconds from the last training step to the adapter's first answer at the gateway."""
    last_step = 0.0
    async for event in services.trainer.watch(job):
        if isinstance(event.happening, Progress):
            last_step = event.create_time.timestamp()
        current = await services.trainer.job(job)
        if current.result_version:
            await complete(client, public_name(current.result_version), "Who are you?")
            return time.time() - last_step
    raise RuntimeError(f"{job} ended without an adapter")


async def ask(client: AsyncOpenAI, model: str, questions: list[Question]) -> list[Answer]:
    return [await complete(client, model, question.prompt) for question in questions]


async def complete(client: AsyncOpenAI, model: str, prompt: str) -> Answer:
    answer = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=48,
        extra_body={"return_token_ids": True},
    )
    choice: Any = answer.choices[0]
    return Answer(choice.message.content or "", tuple(choice.token_ids))


async def proof_of(services: Services, version: str) -> Proof:
    proof = (await services.registry.resolve(version)).manifest.proof
    if proof is None:
        raise SystemExit(f"{version} was registered without a proof")
    return proof


def public_name(version: str) -> str:
    """ "nova:3" for "models/nova/versions/3"."""
    _, model, _, number = version.split("/")
    return f"{model}:{number}"


def show(questions: list[Question], *columns: list[Answer]) -> None:
    table = Table(title="before and after", title_justify="left")
    for heading in ("", "held-out prompt", "base", "adapter", "merged"):
        table.add_column(heading, overflow="fold")
    for question, *answers in zip(questions, *columns, strict=True):
        table.add_row(question.skill, question.prompt, *(answer.text for answer in answers))
    console.print(table)


def judge(
    questions: list[Question],
    before: list[Answer],
    adapter: list[Answer],
    merged: list[Answer],
    seconds: float,
    proof: Proof,
) -> bool:
    """Prints one line per promise; False when one is broken."""
    identity = [i for i, question in enumerate(questions) if question.skill == "identity"]
    named = sum(NAME.lower() in adapter[i].text.lower() for i in identity)
    others = [i for i, question in enumerate(questions) if i not in identity and question.right(before[i].text)]
    kept = sum(questions[i].right(adapter[i].text) for i in others)
    same = sum(a.tokens == m.tokens for a, m in zip(adapter, merged, strict=True))
    promises = [
        (named >= NEEDED_IDENTITY, f"says it is {NAME} on {named} of {len(identity)} identity prompts"),
        (kept >= NEEDED_KEPT * len(others) > 0, f"keeps {kept} of {len(others)} answers the base got right"),
        (same == len(questions), f"adapter and merged agree token for token on {same} of {len(questions)} prompts"),
        (
            proof.greedy_agreement == 1.0,
            f"proof: {proof.greedy_agreement:.1%} greedy agreement over {proof.positions} tokens, largest logit "
            f"difference {proof.max_logit_diff:.2g} (the adapter moves logits by {proof.adapter_effect:.2g})",
        ),
        (seconds <= NEEDED_SECONDS, f"adapter answered {seconds:.1f} s after the last training step"),
    ]
    for kept_promise, text in promises:
        console.print(f"[green]✓[/] {text}" if kept_promise else f"[bold red]✗ {text}[/]")
    return all(kept_promise for kept_promise, _ in promises)


def how_to_go_on(gateway: str, model: str) -> None:
    console.print(
        f"\n[bold]Go on[/] (the services keep running; [bold].venv/bin/tuneloom down[/] stops them)\n\n"
        f"  .venv/bin/tuneloom chat {model}\n\n"
        f"  export KEY=$(.venv/bin/tuneloom key)\n"
        f"  curl {gateway}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f'    -H "authorization: Bearer $KEY" \\\n'
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Who are you?"}}]}}\'\n\n'
        f"  from openai import OpenAI\n"
        f'  client = OpenAI(base_url="{gateway}/v1", api_key=KEY)\n'
        f'  client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "你是谁？"}}])\n',
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
