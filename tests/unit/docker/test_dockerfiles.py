"""The rules every Dockerfile of ours keeps. The CUDA ones are held to nothing else: nobody builds them in a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
EACH = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name.removesuffix(".Dockerfile"))
PARTS = {"gateway", "registry", "trainer", "worker", "engine", "cli"}
SERVERS = {"postgres", "s3"}  # for tests and small installations: Debian's packages, users of their own


def instructions(file: Path) -> list[tuple[str, str]]:
    """Instruction and arguments, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", file.read_text("utf-8")).replace("\\\n", " ")
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1].strip()) for line in text.splitlines() if line]


def of(file: Path, instruction: str) -> list[str]:
    return [arguments for name, arguments in instructions(file) if name == instruction]


def last_stage(file: Path) -> list[tuple[str, str]]:
    found = instructions(file)
    return found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]


def part(file: Path) -> str:
    return file.name.removesuffix(".Dockerfile")


def test_every_part_has_one() -> None:
    assert {part(file) for file in FILES} >= PARTS


@EACH
def test_the_base_is_an_argument_with_a_full_tag(file: Path) -> None:
    assert instructions(file)[0][0] == "ARG"
    base = of(file, "ARG")[0]
    assert re.fullmatch(r"BASE=[a-z/.-]+:[\w.-]+", base), base
    assert "latest" not in base
    assert all(stage.split()[0] == "${BASE}" for stage in of(file, "FROM"))


@EACH
def test_it_runs_as_a_user_known_by_number(file: Path) -> None:
    users = [arguments for name, arguments in last_stage(file) if name == "USER"]
    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[0])


@EACH
def test_it_says_how_its_health_is_seen(file: Path) -> None:
    checks = of(file, "HEALTHCHECK")
    assert len(checks) == 1
    if part(file) == "cli":
        assert checks == ["NONE"]
    else:
        assert re.search(r"CMD \[", checks[0]), "in exec form"
        assert "curl" not in checks[0] or part(file) == "s3"


@EACH
def test_it_has_labels_and_an_entry_point_without_a_shell(file: Path) -> None:
    labels = " ".join(arguments for name, arguments in last_stage(file) if name == "LABEL")
    assert set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels)) >= {"title", "description", "licenses"}
    entry = of(file, "ENTRYPOINT")
    assert len(entry) == 1
    assert entry[0].startswith("[")


@EACH
def test_what_is_installed_is_checked_or_signed(file: Path) -> None:
    text = " ".join(arguments for name, arguments in instructions(file) if name == "RUN")
    assert not re.search(r"https?:|sudo|apt-key|trusted-host", text)
    assert not of(file, "ADD")
    for install in re.findall(r"apt-get install[^&]*", text):
        assert "-y --no-install-recommends" in install
    assert text.count("apt-get update") == text.count("rm -rf /var/lib/apt/lists/*")
    for install in re.findall(r"pip install[^&]*", text):
        assert "--require-hashes" in install or "--no-index" in install


@EACH
def test_the_final_stage_has_no_tools_to_build_with(file: Path) -> None:
    if part(file) in SERVERS:
        return
    for name, arguments in last_stage(file):
        if name == "RUN":
            assert not re.search(r"binutils|gcc|build-essential|-dev\b|\bpip\b", arguments), arguments


@EACH
def test_it_holds_no_secret_and_no_machine(file: Path) -> None:
    named = " ".join(arguments for name, arguments in instructions(file) if name in ("ENV", "ARG"))
    assert not re.search(r"(?i)(token|password|secret|api_?key)\w*=", named)
    text = file.read_text("utf-8")
    assert not re.search(r"/work/|/root/|/home/", text)


@EACH
def test_a_file_nobody_builds_says_so(file: Path) -> None:
    assert ("WRITTEN AND LINTED ONLY" in file.read_text("utf-8")) == ("cuda" in file.name)


def test_what_is_sent_to_the_builder_is_listed() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines[1] == "*", "everything is left out but what is named"
    assert not {line for line in lines if line.startswith("!") and line[1:] in (".git", "tests", ".venv")}
