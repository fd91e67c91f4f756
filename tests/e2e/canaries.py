"""Strings that no log may hold, and the look for them. Their tests send them wherever a user can."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tuneloom_cli.local.home import Home

KEY = "tl-canary-key-5f0c2e71"
TOKEN = "canary-token-9d41b6a2"
PROMPT = "Which canary sang before the mine fell silent?"
ROW = "The yellow canary of row seventeen answered."


def leaks(home: Home) -> list[str]:
    """Where a canary, or one of the home's own keys, is in a log: "file:line: what", never the line itself."""
    secrets = {"the canary key": KEY, "the canary token": TOKEN, "the canary prompt": PROMPT, "the canary row": ROW}
    connection = home.connection()
    secrets |= {"the API key": connection.api_key, "the service token": connection.service_token}
    if connection.keys is not None:
        secrets |= {f"the key of {name}": key for name, key in asdict(connection.keys).items()}
    return [
        f"{path.relative_to(home.path)}:{number}: {name}"
        for path in logs(home)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        for name, secret in secrets.items()
        if secret in line
    ]


def logs(home: Home) -> list[Path]:
    """Everything under the home's logs, and what is called a log elsewhere in the home."""
    found = {path for path in home.logs.rglob("*") if path.is_file()} | set(home.path.rglob("*.log*"))
    return sorted(path for path in found if path.is_file())
