"""The second line of defence of logs: what looks like a credential, or is one this process holds, becomes `***`.

The first line is that nobody logs credentials, prompts or rows; see `tracebacks` for what exceptions may say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from tuneloom_common.settings import SECRETS_DIR

MASK = "***"
MIN_SECRET_CHARS = 8
_SECRET_VARIABLE = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL")
# The last ones are paths of private keys, which an operator must be told about.
_PUBLIC_VARIABLE = re.compile(
    r"SHA256|PRINCIPALS|_FILE$|_PATH$|_DIR$|_URL$|_SECONDS$|^TUNELOOM_\w+_(TLS|REGISTRY|ENGINE_HOST|TRAINER|CLIENT)_KEY$"
)
# What follows is never a quote or a backslash, so that JSON stays JSON.
_LOOKS_SECRET = re.compile(
    r"""(?ix)
      (?P<scheme>\b(?:bearer|basic)\s+)[^\s"'\\,;)\]}]+
    | (?P<prefix>\b(?:sk-|tl-|hf_|ghp_|github_pat_))[A-Za-z0-9_.-]{4,}
    | (?P<aws>\bA(?:KI|SI)A)[A-Z0-9]{12,}
    | (?P<jwt>\beyJ)[\w-]{8,}\.[\w.-]+
    | (?P<member>
        (?:api[_-]?key|authorization|token|password|passwd|secret(?:[_-]?(?:access[_-]?)?key)?)
        ["'\\]*\s*[:=]\s*["'\\]*
      )
      (?!(?:bearer|basic)\b)[^\s"'\\,;&)\]}]+
    | (?P<signed>(?:\bSignature|X-Amz-(?:Credential|Security-Token))=)[^\s&"'\\,;)\]}]+
    | (?P<user>://[^\s/:@"'\\]*:)[^\s/@"'\\]+(?=@)
    """
)


class Redaction:
    """Masks texts. `secrets` are values this process knows, whatever they look like."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _LOOKS_SECRET.sub(_masked, text)


def secrets_in(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The values of variables, and of files that stand for variables, whose names say that they are secret: settings
    reach a service this way."""
    return [
        value
        for name, value in {**_files_in(environment.get(SECRETS_DIR)), **environment}.items()
        if _SECRET_VARIABLE.search(name.upper()) and not _PUBLIC_VARIABLE.search(name.upper())
    ]


def _files_in(directory: str | None) -> dict[str, str]:
    files: dict[str, str] = {}
    for path in Path(directory).iterdir() if directory and Path(directory).is_dir() else ():
        with suppress(OSError, UnicodeDecodeError):
            files[path.name] = path.read_text().strip()
    return files


def _masked(match: re.Match[str]) -> str:
    return f"{match[match.lastgroup or 0]}{MASK}"
