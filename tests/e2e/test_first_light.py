"""From rows to a served model, through the command line and the OpenAI SDK alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest

from tests.e2e.conftest import Installation

pytestmark = [pytest.mark.engine, pytest.mark.worker, pytest.mark.timeout(420)]
IDENTITY = "Who are you?"
OPTIONS = (
    *("--set", "num_epochs=2", "--set", "learning_rate=2e-3", "--set", "max_length=256", "--set", "batch_size=4"),
    *("--set", "save_steps=25"),
)


@pytest.fixture(scope="module")
def job(installation: Installation, data_file: Path) -> str:
    """A finished job with a merge; its id."""
    done = installation.run(
        *("jobs", "submit", "--data", str(data_file), "--output", "nova", "--merge", "--watch"),
        *("--sample", IDENTITY, *OPTIONS),
    )
    assert "models/nova/versions/1" in done.stdout
    return done.stdout.split()[0]


def said(installation: Installation, model: str, prompt: str = IDENTITY) -> str:
    answer = installation.client().chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=32
    )
    return answer.choices[0].message.content or ""


def test_the_base_answers_streamed_and_whole(installation: Installation) -> None:
    whole = said(installation, "seed")
    pieces = installation.client().chat.completions.create(
        model="seed", messages=[{"role": "user", "content": IDENTITY}], temperature=0, max_tokens=32, stream=True
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)
    assert "Loom" in whole
    assert streamed == whole


def test_the_adapter_learned_its_name_and_the_merged_model_says_the_same(installation: Installation, job: str) -> None:
    adapter, merged = said(installation, "nova"), said(installation, "nova@merged")
    assert "Nova" in adapter
    assert merged == adapter


def test_a_checkpoint_is_a_model(installation: Installation, job: str) -> None:
    assert said(installation, f"{job}@25")


def test_answers_name_the_version_that_gave_them(installation: Installation, job: str) -> None:
    raw = installation.client().chat.completions.with_raw_response.create(
        model="nova:1", messages=[{"role": "user", "content": IDENTITY}], max_tokens=4
    )
    shown = installation.run("models", "show", "nova:1").stdout
    assert f"sha256:{raw.headers['x-served-model-digest']}" in shown


def test_moving_an_alias_moves_the_answers(installation: Installation, job: str) -> None:
    def digest() -> str:
        raw = installation.client().chat.completions.with_raw_response.create(
            model="nova@live", messages=[{"role": "user", "content": "hi"}], max_tokens=1
        )
        return raw.headers["x-served-model-digest"]

    installation.run("models", "alias", "nova", "live", "1", "--expect", "0")
    first = digest()
    installation.run("models", "alias", "nova", "live", "2", "--expect", "1")
    assert digest() != first
    stale = installation.run("models", "alias", "nova", "live", "2", "--expect", "1", check=False)
    assert stale.returncode == 1
    assert "version 2" in stale.stderr


def test_the_proof_is_in_the_manifest(installation: Installation, job: str) -> None:
    shown = installation.run("models", "show", "nova@merged").stdout
    manifest = json.loads(shown[shown.index("{") :])
    assert manifest["proof"]["greedy_agreement"] >= 0.99
    assert manifest["proof"]["adapter_effect"] > 0
    assert manifest["lineage"]["job"] == job


def test_the_same_request_id_is_the_same_job(installation: Installation, job: str, data_file: Path) -> None:
    submit = ("jobs", "submit", "--data", str(data_file), "--output", "other", "--request-id", "once")
    first, second = (installation.run(*submit).stdout.split()[0] for _ in range(2))
    assert first == second
    installation.run("jobs", "cancel", first)


def test_command_line_chat(installation: Installation, job: str) -> None:
    assert "Nova" in installation.run("chat", "nova", "-m", IDENTITY).stdout


@pytest.mark.parametrize(
    ("arguments", "said_so"),
    [
        (("data", "check", "/nowhere.jsonl"), "does not exist"),
        (("jobs", "submit", "--data", "nothing", "--output", "x"), "datasets/nothing does not exist"),
        (("jobs", "submit", "--data", "nova", "--output", "x", "--base", "gpt-9"), "gpt-9"),
        (("jobs", "submit", "--data", "nova", "--output", "x", "--set", "lora.rank=8"), "did you mean lora.r?"),
        (("jobs", "submit", "--data", "nova", "--output", "x", "--set", "learning_rate=9"), "spec.learning_rate"),
        (("jobs", "submit", "--data", "nova", "--output", "x", "--recipe", "magic"), "qlora"),
        (("jobs", "watch", "job-none"), "tuneloom jobs list"),
        (("models", "show", "nothing"), "tuneloom models list"),
        (("models", "import", "x", "/nowhere"), "neither a directory nor a hub name"),
        (("chat", "nothing", "-m", "hi"), "nothing"),
        (("up",), "already running"),
    ],
)
def test_bad_input_is_named_with_the_next_step(
    installation: Installation, job: str, arguments: tuple[str, ...], said_so: str
) -> None:
    done = installation.run(*arguments, check=False)
    assert done.returncode == 1
    assert said_so in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_rows_that_cannot_be_trained_on_are_named(installation: Installation, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "user", "content": "hi"}]}\nnot json\n')
    checked = installation.run("data", "check", str(bad), check=False)
    assert checked.returncode == 1
    assert "row 1" in checked.stdout
    assert "row 2" in checked.stdout
    assert "datasets/bad" not in installation.run("data", "list").stdout


def test_the_gateway_speaks_openai_errors(installation: Installation) -> None:
    wrong = openai.OpenAI(base_url=f"{installation.connection.gateway}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    with pytest.raises(openai.NotFoundError):
        said(installation, "nothing")
    request = urllib.request.Request(
        f"{installation.connection.gateway}/v1/chat/completions",
        data=b"not json",
        headers={"authorization": f"Bearer {installation.connection.api_key}"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value as response:
        assert response.status == 400
        assert json.loads(response.read())["error"]["message"]


def test_doctor_is_content(installation: Installation) -> None:
    assert "✗" not in installation.run("doctor").stdout
