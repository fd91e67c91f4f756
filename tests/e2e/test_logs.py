"""Runs last: nothing that the tests before it have said, or that is sent here, is in any log."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.e2e import canaries
from tests.e2e.conftest import Installation

pytestmark = [pytest.mark.engine, pytest.mark.worker, pytest.mark.timeout(420)]


def test_no_secret_is_in_any_log(installation: Installation, tmp_path: Path) -> None:
    for model in ("seed", "nothing"):
        for more in ({}, {"stream": True}, {"max_tokens": -1}, {"messages": [{"role": canaries.ROW}]}):
            ask(installation, installation.connection.api_key, model=model, **more)
    ask(installation, canaries.KEY, model="seed")
    ask(installation, canaries.TOKEN, model=canaries.PROMPT)
    data = tmp_path / "canary.jsonl"
    rows = [[{"role": "user", "content": canaries.PROMPT}, {"role": "assistant", "content": canaries.ROW}]] * 8
    data.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    installation.run("data", "upload", "--name", "canary", str(data), check=False)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"messages": [{"role": canaries.PROMPT, "content": canaries.ROW}]}) + "\n")
    installation.run("data", "upload", "--name", "bad", str(bad), check=False)
    installation.run(
        *("jobs", "submit", "--data", "canary", "--output", "canary", "--recipe", "lora", "--set", "max_steps=2"),
        *("--sample", canaries.PROMPT, "--set", "max_length=64", "--watch"),
        check=False,
    )
    assert len(canaries.logs(installation.home)) > 3
    assert canaries.leaks(installation.home) == []


def ask(installation: Installation, key: str, **body: object) -> None:
    """A chat request whose outcome does not matter."""
    messages = [{"role": "user", "content": canaries.PROMPT}]
    request = urllib.request.Request(
        f"{installation.connection.gateway}/v1/chat/completions",
        data=json.dumps({"messages": messages, "max_tokens": 2, **body}).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.close()
