from __future__ import annotations

import pytest
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from tuneloom_common.database import DatabaseSettings, Limits
from tuneloom_common.settings import load

URL = "TUNELOOM_EXAMPLE_DATABASE_URL"


class Example(DatabaseSettings):
    model_config = SettingsConfigDict(env_prefix="TUNELOOM_EXAMPLE_", frozen=True, extra="ignore")

    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///here.db")


def test_a_url_and_its_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "postgresql://tuneloom:s3cret@db:5432/tuneloom?sslmode=require")
    monkeypatch.setenv("TUNELOOM_EXAMPLE_DATABASE_CONNECTIONS", "4")
    monkeypatch.setenv("TUNELOOM_EXAMPLE_DATABASE_LOCK_SECONDS", "2.5")
    settings = load(Example)
    assert settings.database_limits == Limits(lock_seconds=2.5, statement_seconds=30.0, connections=4)
    assert settings.database_url.get_secret_value().startswith("postgresql://")
    assert "s3cret" not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://root:s3cret@db/x", "must begin with sqlite"),
        ("postgresql+asyncpg://root:s3cret@db/x", "or postgresql://"),
        ("postgresql://root:p:s3cret@db:port/x", "is no URL; special characters"),
        ("", "must begin with"),
    ],
)
def test_another_url_stops_the_start_and_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, told: str
) -> None:
    monkeypatch.setenv(URL, url)
    with pytest.raises(SystemExit):
        load(Example)
    shown = capsys.readouterr().err
    assert URL in shown
    assert told in shown
    assert "s3cret" not in shown
