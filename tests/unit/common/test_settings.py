from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from tuneloom_common.settings import ServiceSettings, load


class Example(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="TUNELOOM_EXAMPLE_", frozen=True, extra="ignore")

    port: int = Field(default=1, ge=0, le=65535)
    token: SecretStr | None = None
    pin: SecretStr | None = Field(default=None, max_length=3)
    url: str
    command: tuple[str, ...] = ()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_EXAMPLE_URL", "here")


def test_values_come_from_prefixed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_EXAMPLE_PORT", "8021")
    monkeypatch.setenv("TUNELOOM_EXAMPLE_COMMAND", '["python", "-m", "x"]')
    monkeypatch.setenv("TUNELOOM_EXAMPLE_OTHER", "is nobody's business")
    settings = load(Example)
    assert (settings.port, settings.url, settings.command) == (8021, "here", ("python", "-m", "x"))
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_every_bad_value_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TUNELOOM_EXAMPLE_URL")
    monkeypatch.setenv("TUNELOOM_EXAMPLE_PORT", "70000")
    with pytest.raises(SystemExit) as caught:
        load(Example)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["TUNELOOM_EXAMPLE_PORT", "TUNELOOM_EXAMPLE_URL"]


def test_a_list_that_is_not_json_is_named_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNELOOM_EXAMPLE_COMMAND", "python -m hunter2")
    with pytest.raises(SystemExit) as caught:
        load(Example)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("TUNELOOM_EXAMPLE_COMMAND: must be JSON")
    assert "hunter2" not in told


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TUNELOOM_EXAMPLE_TOKEN", "hunter2")
    assert "hunter2" not in repr(load(Example))
    monkeypatch.setenv("TUNELOOM_EXAMPLE_PIN", "hunter2")
    with pytest.raises(SystemExit):
        load(Example)
    told = capsys.readouterr().err
    assert told.startswith("TUNELOOM_EXAMPLE_PIN: ")
    assert "hunter2" not in told


def test_files_of_a_directory_stand_for_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNELOOM_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("TUNELOOM_EXAMPLE_PORT", "2")
    (tmp_path / "TUNELOOM_EXAMPLE_TOKEN").write_text("hunter2\n")
    (tmp_path / "TUNELOOM_EXAMPLE_COMMAND").write_text('["python", "-m", "x"]')
    (tmp_path / "TUNELOOM_EXAMPLE_PORT").write_text("1")
    settings = load(Example)
    assert settings.token is not None
    assert settings.token.get_secret_value() == "hunter2"
    assert (settings.command, settings.port) == (("python", "-m", "x"), 2)


def test_a_directory_of_secrets_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNELOOM_SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as caught:
        load(Example)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("TUNELOOM_SECRETS_DIR: there is no directory")
