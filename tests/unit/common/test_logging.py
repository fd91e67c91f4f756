"""No key, token, prompt or row in any log line, whoever writes it and however it is written."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.unit.common import talkative
from tuneloom_common.errors import NotFound
from tuneloom_common.redaction import Redaction, secrets_in
from tuneloom_common.tracebacks import describe

CANARIES = (talkative.KEY, talkative.TOKEN, talkative.PROMPT, talkative.ROW, "abcdef123456", "hunter22")


@cache
def logged(form: str) -> str:
    """What a process that logs in every way has written."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "tests.unit.common.talkative", form],
        capture_output=True, text=True, timeout=60, check=False, cwd=root,
    )  # fmt: skip
    assert done.returncode == 1  # it ended by an uncaught exception
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("canary", CANARIES)
def test_nothing_of_it_is_in_the_log(form: str, canary: str) -> None:
    lines = [line for line in logged(form).splitlines() if canary in line]
    assert lines == []


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("kind", ["structlog", "stdlib", "asyncio task", "asyncio callback", "thread", "main"])
def test_tracebacks_are_there(form: str, kind: str) -> None:
    said = {
        "structlog": "exception", "stdlib": "Exception calling application: RuntimeError",
        "asyncio task": "Task exception was never retrieved", "asyncio callback": "Exception in callback fail",
        "thread": "uncaught exception in a thread", "main": "uncaught exception",
    }[kind]  # fmt: skip
    if form == "json":
        events = [json.loads(line) for line in logged(form).splitlines() if line.startswith("{")]
        found = next(event for event in events if event["event"] == said)["exception"]
    else:
        found = logged(form).partition(said)[2]
    assert "Traceback (most recent call last)" in found
    assert "in fail" in found
    assert "pydantic_core._pydantic_core.ValidationError\n" in found
    assert "RuntimeError" in found


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_helps_is_kept(form: str) -> None:
    text = logged(form)
    assert "OperationalError: database is locked" in text  # the database's own words hold no data
    assert "Unavailable: the engine refused 'Authorization: Bearer ***" in text
    assert "2 of 2 in the group" in text
    assert "UserWarning at " in text
    assert "exception ignored" in text
    assert "a log record of grpc (" in text
    assert "<Holder>" in text


def test_json_is_one_object_a_line() -> None:
    for line in logged("json").splitlines():
        assert line.startswith("a log record of ") or json.loads(line)["service"] == "talkative"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("p"), "KeyError"),
        (FileNotFoundError(2, "No such file or directory", "/srv/x"),
         "FileNotFoundError: [Errno 2] No such file or directory: '/srv/x'"),
        (OSError("p"), "OSError"),
        (NotFound("models/x does not exist"), "NotFound: models/x does not exist"),
        (json.JSONDecodeError("m", "doc", 1), "json.decoder.JSONDecodeError"),
    ],
)  # fmt: skip
def test_what_an_exception_may_say(error: BaseException, told: str) -> None:
    assert describe(error) == told


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def-1, next", "Authorization: Bearer ***, next"),
        ('{"api_key": "0123", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("token=abc&x=1", "token=***&x=1"),
        ("key sk-abcd1234 used", "key sk-*** used"),
        ("aws_secret_access_key = wJalr/XU+n=", "aws_secret_access_key = ***"),
        ("AWS_SECRET_ACCESS_KEY=wJalr", "AWS_SECRET_ACCESS_KEY=***"),
        ('{"secretKey": "abc", "SecretAccessKey": "d"}', '{"secretKey": "***", "SecretAccessKey": "***"}'),
        ("AWS4-HMAC-SHA256 SignedHeaders=host, Signature=ab12cd", "AWS4-HMAC-SHA256 SignedHeaders=host, Signature=***"),
        ("/b/k?X-Amz-Signature=ab12cd&x=1", "/b/k?X-Amz-Signature=***&x=1"),
        ("http://user:pw@host/", "http://user:***@host/"),
        ("it knows my-known-value!", "it knows ***!"),
        ("tokens: 12, stop_tokens: [2], task-0001 hf-internal-testing/tiny", None),
        ("set TUNELOOM_GATEWAY_REGISTRY_TOKEN to its token; monkey: 1", None),
    ],
)
def test_masks(text: str, masked: str | None) -> None:
    assert Redaction(["my-known-value", "short"])(text) == (masked or text)


def test_secret_variables() -> None:
    environment = {"A_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "s", "API_KEY_SHA256S": "h", "HOME": "/", "KEY_FILE": "/k"}
    assert secrets_in(environment) == ["t", "s"]


def test_files_that_stand_for_secret_variables(tmp_path: Path) -> None:
    (tmp_path / "TUNELOOM_TRAINER_REGISTRY_TOKEN").write_text("from-a-file\n")
    (tmp_path / "TUNELOOM_TRAINER_PORT").write_text("8022")
    assert secrets_in({"TUNELOOM_SECRETS_DIR": str(tmp_path), "A_TOKEN": "t"}) == ["from-a-file", "t"]
    assert secrets_in({"TUNELOOM_SECRETS_DIR": str(tmp_path / "none")}) == []
