"""`tuneloom jobs` against a scripted trainer and a real registry."""

from __future__ import annotations

import json
import socket

import pytest

from tests.unit.cli.conftest import Say, World
from tuneloom.trainer.v1 import jobs_pb2
from tuneloom.trainer.v1 import trainer_pb2 as pb
from tuneloom_cli.local.home import Ports
from tuneloom_common.errors import InvalidArgument, NotFound, Unavailable
from tuneloom_common.kinds import Kind

JOB = "job-4k2m9x7q3a"
PROGRESS = jobs_pb2.Progress(step=20, total_steps=160, loss=2.12345, tokens_per_second=3300, eta_seconds=75)


def event(**happening: object) -> pb.TrainingJobEvent:
    return pb.TrainingJobEvent(**happening)  # type: ignore[arg-type]


def state(value: int, reason: str = "") -> pb.TrainingJobEvent:
    return event(state_changed=pb.StateChanged(state=value, reason=reason))  # type: ignore[arg-type]


def test_jobs_are_listed_whole(world: World, say: Say) -> None:
    world.trainer.add("job-" + "x" * 50, progress=PROGRESS, state=jobs_pb2.JOB_STATE_RUNNING)
    world.trainer.add(JOB, result_version="models/helper/versions/12", state=jobs_pb2.JOB_STATE_SUCCEEDED)
    lines = say("jobs", "list").output.splitlines()
    assert lines[1].split() == ["job-" + "x" * 50, "running", "seed", "helper", "20/160", "2.123"]
    assert lines[2].split() == [JOB, "succeeded", "seed", "helper", "-", "-", "models/helper/versions/12"]
    assert len(say("jobs", "list", "--limit", "1").output.splitlines()) == 2


def test_a_job_is_the_same_shape_everywhere(world: World, say: Say) -> None:
    spec = jobs_pb2.TrainingSpec(max_steps=5, seed=7, tuning=jobs_pb2.TUNING_LORA, sample_prompts=["hi"])
    spec.lora.target_modules.append("q_proj")
    world.trainer.add(JOB, spec=spec, progress=PROGRESS, state=jobs_pb2.JOB_STATE_RUNNING)
    [listed] = json.loads(say("jobs", "list", "--json").output)
    shown = json.loads(say("jobs", "show", JOB, "--json").output)
    assert shown == listed
    assert (shown["id"], shown["name"], shown["state"]) == (JOB, f"trainingJobs/{JOB}", "running")
    assert shown["progress"]["step"] == 20
    assert shown["spec"] == {
        "lora": {"target_modules": ["q_proj"]},
        "max_steps": 5,
        "seed": 7,
        "sample_prompts": ["hi"],
        "tuning": "lora",
    }
    assert (shown["create_time"], shown["end_time"]) == ("2026-11-21T10:00:00.000Z", None)


def test_show_tells_what_happened(world: World, say: Say) -> None:
    job = world.trainer.add(
        JOB, state=jobs_pb2.JOB_STATE_FAILED, error="CUDA [out] of memory", error_reason="OUT_OF_MEMORY", merge=True
    )
    job.end_time.FromJsonString("2026-11-21T11:02:03Z")
    job.spec.lora.r = 8
    said = say("jobs", "show", JOB).output
    for words in (
        "failed (OUT_OF_MEMORY)",
        "CUDA [out] of memory",
        "helper, merged and proven",
        "1:02:03",
        "lora.r = 8",
    ):
        assert words in said
    with pytest.raises(NotFound, match="job-ghost does not exist"):
        say("jobs", "show", "job-ghost")


def test_submitting_a_file_uploads_it_first(world: World, say: Say) -> None:
    file = world.dataset("faq")
    arguments = ("--data", str(file), "--output", "helper", "--set", "lora.r=8", "--merge", "--request-id", "mine")
    said = say("jobs", "submit", *arguments).output
    assert said.split()[0] == "job-new"  # scripts take it from there
    assert "job-new  seed + datasets/faq/versions/1 -> models/helper" in said
    assert "tuneloom jobs watch job-new" in said
    [request] = world.trainer.requests
    job = request.training_job
    assert (request.request_id, job.dataset, job.spec.lora.r, job.merge) == ("mine", "datasets/faq/versions/1", 8, True)
    assert not job.no_promote
    say("jobs", "submit", "-d", "faq", "-o", "helper", "--no-promote")
    assert world.trainer.requests[-1].training_job.no_promote


def test_checking_submits_nothing(world: World, say: Say) -> None:
    assert "would be accepted" in say("jobs", "submit", "-d", "faq", "-o", "helper", "--check").output
    assert world.trainer.requests[0].validate_only
    assert world.trainer.requests[0].training_job.dataset == "datasets/faq"


def test_a_submitted_job_can_be_read_by_a_program(world: World, say: Say) -> None:
    arguments = ("--data", str(world.dataset("faq")), "--output", "helper", "--json")
    assert json.loads(say("jobs", "submit", *arguments).output)["id"] == "job-new"


def test_bad_rows_are_not_submitted(world: World, say: Say) -> None:
    file = world.directory / "bad.jsonl"
    file.write_text("{}\n")
    with pytest.raises(InvalidArgument, match="tuneloom data check"):
        say("jobs", "submit", "-d", str(file), "-o", "helper")
    assert world.trainer.requests == []


def test_progress_is_told_without_a_terminal(world: World, say: Say) -> None:
    base = world.model("seed")
    result = world.model("helper", Kind.ADAPTER, base=base)
    job = world.trainer.add(JOB, state=jobs_pb2.JOB_STATE_RUNNING)
    steps = [jobs_pb2.Progress(step=step, total_steps=1000, loss=1.5) for step in range(1, 1001)]
    world.trainer.events = [
        state(jobs_pb2.JOB_STATE_VALIDATING),
        event(data_report=pb.DataReport(rows=9, tokens=100, trained_tokens=50)),
        state(jobs_pb2.JOB_STATE_RUNNING),
        *(event(progress=step) for step in steps),
        event(sample_chat=pb.SampleChat(step=5, prompt="Who [are] you?", answer="Nova")),
        event(checkpoint=jobs_pb2.Checkpoint(step=5, model_name=f"{JOB}@5", loss=1.25)),
        event(note=pb.Note(text="the [first] note")),
        state(jobs_pb2.JOB_STATE_SUCCEEDED),
    ]
    job.state = jobs_pb2.JOB_STATE_SUCCEEDED
    job.result_version = str(result.name)
    said = say("jobs", "watch", JOB).output
    lines = said.splitlines()
    assert lines[:3] == ["validating", "9 rows, 100 tokens (50% trained), 0 sequences, 0 cut, 0 duplicates", "running"]
    assert 45 <= sum(line.startswith("step ") and "/1000" in line for line in lines) <= 55
    for words in ("Who [are] you? → Nova", f"checkpoint {JOB}@5, loss 1.250", "the [first] note"):
        assert words in said
    assert lines[-1] == "Next: tuneloom chat helper"


def test_the_end_says_what_the_name_means(world: World, say: Say) -> None:
    base = world.model("seed")
    world.model("helper", Kind.ADAPTER, base=base)
    second = world.model("helper", Kind.ADAPTER, base=base, salt="2")
    world.trainer.add(JOB, state=jobs_pb2.JOB_STATE_SUCCEEDED, result_version=str(second.name))
    said = " ".join(say("jobs", "watch", JOB).output.split())
    assert "Next: tuneloom chat helper:2" in said
    assert "helper alone still means version 1; tuneloom models alias helper default 2 changes that" in said


def test_a_failed_job_fails_the_command_and_names_its_log(world: World, say: Say) -> None:
    world.trainer.add(JOB, state=jobs_pb2.JOB_STATE_FAILED, error="row [3] is bad", error_reason="DATA_CONTRACT")
    said = say("jobs", "watch", JOB, fails=True).output
    assert "DATA_CONTRACT: row [3] is bad" in said
    assert f"tuneloom jobs logs {JOB}" in said
    world.trainer.add(JOB, state=jobs_pb2.JOB_STATE_CANCELLED)
    assert "the job is cancelled" in say("jobs", "watch", JOB, fails=True).output


def test_nobody_there_is_said_at_once(world: World, say: Say) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        world.home.prepare(Ports(trainer=unused.getsockname()[1]))
    with pytest.raises(Unavailable, match="the trainer does not answer"):
        say("jobs", "watch", JOB)


def test_the_workers_log_is_printed_as_it_is(world: World, say: Say) -> None:
    job = world.trainer.add(JOB)
    world.trainer.logs[job.name] = "Traceback:\n\t[red]oops[/] :smile:\n" + "x" * 200 + "\n"
    assert world.trainer.logs[job.name] in say("jobs", "logs", JOB, "--max-bytes", "5000").output
    assert world.trainer.requests[-1].max_bytes == 5000
    world.trainer.add("job-2")
    assert "has no log here" in say("jobs", "logs", "job-2").output


@pytest.mark.parametrize(("verb", "became"), [("pause", "pausing"), ("resume", "queued"), ("cancel", "cancelling")])
def test_verbs_say_what_the_job_is_now(world: World, say: Say, verb: str, became: str) -> None:
    world.trainer.add(JOB)
    assert say("jobs", verb, JOB).output == f"{JOB} is {became}\n"


def test_checkpoints_and_recipes(world: World, say: Say) -> None:
    world.trainer.add(JOB)
    point = jobs_pb2.Checkpoint(step=80, version=f"models/{JOB}/versions/2", loss=0.5, model_name=f"{JOB}@80")
    world.trainer.checkpoints = [point]
    assert say("jobs", "checkpoints", JOB).output.splitlines()[1].split() == [f"{JOB}@80", "80", "0.500", point.version]
    [checkpoint] = json.loads(say("jobs", "checkpoints", JOB, "--json").output)
    assert (checkpoint["step"], checkpoint["model_name"]) == (80, f"{JOB}@80")
    said = say("jobs", "recipes").output
    assert "qlora  Small memory." in said
    assert "lora.r = 16" in said
    assert "tuning = lora" in said
    assert "method" not in said
    [recipe] = json.loads(say("jobs", "recipes", "--json").output)
    assert recipe["spec"] == {"lora": {"r": 16}, "max_steps": 0, "seed": 42, "tuning": "lora"}
