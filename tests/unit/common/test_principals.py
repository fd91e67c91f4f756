from __future__ import annotations

import hashlib
import json

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from tuneloom_common.errors import PermissionDenied
from tuneloom_common.principals import Principal, PrincipalEntry, Principals
from tuneloom_common.settings import ServiceSettings, load

HASH = hashlib.sha256(b"key").hexdigest()


def test_a_token_is_known_by_its_hash() -> None:
    known = Principals([PrincipalEntry(id="gateway", token_sha256=HASH, scopes=frozenset({"registry:read"}))])
    found = known.find(b"key")
    assert found == Principal("gateway", frozenset({"registry:read"}))
    assert known.find(b"other") is None
    assert known.find(b"") is None


def test_a_missing_scope_is_named() -> None:
    principal = Principal("gateway", frozenset({"registry:read"}))
    principal.require("registry:read")
    with pytest.raises(PermissionDenied, match=r"gateway may not .* 'registry:write' and has registry:read") as caught:
        principal.require("registry:write")
    assert caught.value.metadata == {"scope": "registry:write"}


def test_admin_may_do_everything() -> None:
    found = Principals(admin_token=SecretStr("root")).find(b"root")
    assert found is not None
    found.require("trainer:report")


def test_without_entries_there_are_none() -> None:
    assert not Principals()
    assert Principals(admin_token=SecretStr("x"))


def test_an_entry_may_call_its_token_a_key() -> None:
    entry = PrincipalEntry.model_validate({"id": "app", "key_sha256": HASH, "scopes": ["inference"]})
    assert entry.token_sha256 == HASH


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "app", "token_sha256": "key", "scopes": ["inference"]},
        {"id": "app", "token_sha256": HASH, "scopes": ["everything"]},
        {"id": "", "token_sha256": HASH, "scopes": []},
        {"id": "a\nb", "token_sha256": HASH, "scopes": []},
    ],
)
def test_a_bad_entry_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PrincipalEntry.model_validate(entry)


def test_a_token_where_its_hash_belongs_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Settings(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix="TUNELOOM_EXAMPLE_")

        principals: tuple[PrincipalEntry, ...] = ()

    entries = [{"id": "app", name: "a-raw-token", "scopes": ["admin"]} for name in ("token_sha256", "key_sha256")]
    monkeypatch.setenv("TUNELOOM_EXAMPLE_PRINCIPALS", json.dumps(entries))
    with pytest.raises(SystemExit):
        load(Settings)
    shown = capsys.readouterr().err
    assert shown.count("is not a sha256 in lower-case hex; make it with") == 2
    assert "a-raw-token" not in shown
