"""The object store's key pair: from a file of the operator's, or from where every AWS tool looks."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.objects.signing import Credentials


class CredentialSource:
    """Looked at for every request that needs them: a file that changes is read again.

    `file` is in the form of `~/.aws/credentials`, and `setting` the variable that names it. Without it:
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, then AWS_SHARED_CREDENTIALS_FILE or
    `~/.aws/credentials`. The section is AWS_PROFILE or "default".
    """

    def __init__(self, file: Path | None, *, setting: str, environment: Mapping[str, str] = os.environ) -> None:
        self._setting = setting
        self._environment = environment
        self._given = file is not None
        shared = environment.get("AWS_SHARED_CREDENTIALS_FILE") or Path("~/.aws/credentials").expanduser()
        self._file = Path(file or shared)
        self._read: tuple[tuple[int, int], Credentials | None] | None = None

    def find(self) -> Credentials | None:
        """None where there are none here: the machine's role, if it has one, is obstore's to find."""
        if not self._given and (key := self._environment.get("AWS_ACCESS_KEY_ID")):
            secret, token = (
                self._environment.get(f"AWS_{name}", "") for name in ("SECRET_ACCESS_KEY", "SESSION_TOKEN")
            )
            return Credentials(key, secret, token)
        try:
            status = self._file.stat()
        except OSError as error:
            if self._given:
                raise InvalidArgument(f"{self._setting}: {self._file}: {error.strerror}") from None
            return None
        seen = (status.st_mtime_ns, status.st_ino)
        if self._read is None or self._read[0] != seen:
            self._read = seen, self._parse()
        return self._read[1]

    def _parse(self) -> Credentials | None:
        parser, profile = configparser.RawConfigParser(), self._environment.get("AWS_PROFILE", "default")
        try:
            parser.read_string(self._file.read_text("utf-8"))
            section = parser[profile]
            return Credentials(
                section["aws_access_key_id"], section["aws_secret_access_key"], section.get("aws_session_token", "")
            )
        except (OSError, ValueError, configparser.Error, KeyError):  # their messages may quote the file
            if not self._given:
                return None
            raise InvalidArgument(
                f"{self._setting}: {self._file} cannot be read or has no aws_access_key_id and aws_secret_access_key "
                f"under [{profile}]; write them as in ~/.aws/credentials"
            ) from None
