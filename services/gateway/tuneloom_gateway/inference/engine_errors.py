"""An engine's error in the words OpenAI's clients know."""

from __future__ import annotations

import json
import re
from typing import Any

from tuneloom_gateway.errors import Answer, answer, without_paths

_FIELDS = ("type", "param", "code")
# OpenAI's types look like this; vLLM's are names of exceptions and phrases of HTTP.
_OPENAI_TYPE = re.compile(r"[a-z]+(_[a-z]+)*")
_TYPES = {429: "rate_limit_error"}


def shape(status: int, body: bytes, *, hidden: tuple[str, ...], shown: str, retry_after: str = "") -> Answer:
    """OpenAI's {"error": {…}}, older vLLM's flat object and FastAPI's {"detail": …} become the first.

    The engine's names for models are replaced by the client's, its file paths are left out.
    """
    said = _said(body)
    message = said.get("message") or said.get("detail") or f"the engine refused the request ({status})"
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    for name in hidden:
        text = text.replace(name, shown)
    kind, param, code = (said.get(key) if isinstance(said.get(key), str) else None for key in _FIELDS)
    if kind is None or not _OPENAI_TYPE.fullmatch(kind):
        told = said["code"] if isinstance(said.get("code"), int) else status
        kind = _TYPES.get(told, "invalid_request_error" if 400 <= told < 500 else "server_error")
    seconds = retry_after if retry_after.isdigit() else ""
    return answer(status, without_paths(text), kind=kind, param=param, code=code, retry_after=seconds)


def _said(body: bytes) -> dict[str, Any]:
    try:
        said: Any = json.loads(body)
    except ValueError:
        said = None
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        said = said["error"]
    return said if isinstance(said, dict) else {"message": body[:500].decode(errors="replace")}
