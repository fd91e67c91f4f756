"""Which store, with which keys: what operators write, and what they read when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from tuneloom_common.errors import InvalidArgument, ResourceExhausted
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.credentials import CredentialSource
from tuneloom_common.objects.faults import Refusal, refused, translated
from tuneloom_common.objects.settings import ObjectsSettings, S3Options
from tuneloom_common.objects.signing import Credentials

FILE = "[default]\naws_access_key_id = one\naws_secret_access_key = secret\n[other]\naws_access_key_id = two\n" \
       "aws_secret_access_key = secret\naws_session_token = token\n"  # fmt: skip


class Settings(ObjectsSettings):
    model_config = SettingsConfigDict(env_prefix="TUNELOOM_TEST_", frozen=True)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        (S3Options(), "https://b.s3.us-east-1.amazonaws.com"),
        (S3Options(region="eu-west-1"), "https://b.s3.eu-west-1.amazonaws.com"),
        (S3Options(region="eu-west-1", path_style=True), "https://s3.eu-west-1.amazonaws.com/b"),
        (S3Options(endpoint="http://store:9000/"), "http://store:9000/b"),
        (S3Options(endpoint="https://store", path_style=False), "https://b.store"),
    ],
)
def test_where_a_bucket_is(monkeypatch: pytest.MonkeyPatch, options: S3Options, url: str) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert options.bucket_url("b") == url


def test_awss_own_variables_fill_in_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://theirs:9000")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert (S3Options().found_endpoint, S3Options().found_region) == ("http://theirs:9000", "eu-north-1")
    ours = S3Options(endpoint="http://ours", region="x")
    assert (ours.found_endpoint, ours.found_region) == ("http://ours", "x")


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, Credentials("one", "secret")),
        ({"AWS_PROFILE": "other"}, Credentials("two", "secret", "token")),
        ({"AWS_PROFILE": "none"}, None),
        ({"AWS_ACCESS_KEY_ID": "three", "AWS_SECRET_ACCESS_KEY": "s"}, Credentials("three", "s")),
    ],
)
def test_keys_are_found_where_every_aws_tool_looks(
    tmp_path: Path, environment: dict[str, str], found: Credentials | None
) -> None:
    file = tmp_path / "credentials"
    file.write_text(FILE)
    known = {"AWS_SHARED_CREDENTIALS_FILE": str(file), **environment}
    assert CredentialSource(None, setting="-", environment=known).find() == found


def test_a_file_of_ours_comes_before_variables_and_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(FILE)
    source = CredentialSource(file, setting="THE_SETTING", environment={"AWS_ACCESS_KEY_ID": "three"})
    assert source.find() == Credentials("one", "secret")
    file.write_text(FILE.replace("one", "another"))
    assert source.find() == Credentials("another", "secret")
    file.write_text("[default]\naws_secret_access_key = secret\n")
    with pytest.raises(InvalidArgument, match=r"THE_SETTING.*aws_access_key_id") as caught:
        source.find()
    assert "secret\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("objects_url", "s3://me:sesame@b/x"), ("objects_endpoint", "http://me:sesame@h")]
)
def test_a_password_in_an_address_is_refused_without_being_told(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"objects_url": "memory://", name: value})
    assert all("sesame" not in problem["msg"] for problem in caught.value.errors())


@pytest.mark.parametrize("url", ["s3://me:sesame@bucket/x", "http://me:sesame@host/x"])
def test_a_store_of_a_url_with_a_password_does_not_tell_it(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ObjectStore(url)
    assert "sesame" not in str(caught.value)


def test_settings_name_their_service() -> None:
    s3 = Settings(objects_url="s3://b/x", objects_region="r").s3
    assert s3.setting("REGION") == "TUNELOOM_TEST_OBJECTS_REGION"


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        ("InvalidAccessKeyId", "OBJECTS_CREDENTIALS", "T_OBJECTS_CREDENTIALS_FILE"),
        ("ExpiredToken", "OBJECTS_CREDENTIALS", "session token"),
        ("NoSuchBucket", "OBJECTS_BUCKET", "no bucket 'b'"),
        ("AccessDenied", "OBJECTS_ACCESS", "get, put and delete"),
        ("PermanentRedirect", "OBJECTS_REGION", "T_OBJECTS_REGION"),
        ("RequestTimeTooSkewed", "OBJECTS_CLOCK", "clock"),
        ("Unreachable", "OBJECTS_UNREACHABLE", "T_OBJECTS_ENDPOINT"),
        ("SlowDown", "OBJECTS_FAILING", "answers SlowDown"),
    ],
)
def test_every_refusal_names_a_next_step(code: str, reason: str, words: str) -> None:
    error = refused(Refusal(code), url="s3://b/x", options=S3Options(prefix="T_"))
    assert error.reason == reason
    assert words in error.message


def test_what_obstore_says_in_words_is_understood() -> None:
    text = (
        "Object at location p not found: Error performing PUT http://h/b/p in 1ms - Server returned non-2xx status "
        "code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>"
    )
    error = translated(FileNotFoundError(text), url="s3://b/x", options=S3Options())
    assert getattr(error, "reason", "") == "OBJECTS_BUCKET"
    full = translated(OSError(28, "No space left on device"), url="s3://b/x", options=S3Options())
    assert isinstance(full, ResourceExhausted)
