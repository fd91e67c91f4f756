from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tuneloom_common.children import PARENT_VARIABLE, Inherit, die_with_parent, environment, last_lines, spawn

READY_THEN_WAIT = "import signal, sys; print('ready', flush=True); signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY_THEN_WAIT}"
# Starts a grandchild that ignores SIGTERM, names it, and waits for it.
FAMILY = """
import signal, subprocess, sys
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
grandchild = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(grandchild.pid, flush=True)
signal.pause()
"""


async def first_line(log: Path) -> str:
    """Waits for a child's first complete line."""
    async with asyncio.timeout(20):
        while "\n" not in (text := log.read_text() if log.exists() else ""):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.005)
    return text.splitlines()[0]


async def ended(pid: int) -> None:
    """Returns when a process is gone or waits to be reaped."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], 20)
        assert ready, f"process {pid} still runs"
    finally:
        os.close(descriptor)


async def test_output_of_a_child_is_appended_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    process = await spawn(
        [
            sys.executable,
            "-c",
            "import os, sys; print(os.environ['X'], flush=True); print(os.getcwd(), file=sys.stderr)",
        ],
        log=log,
        cwd=tmp_path,
        env={"X": "told"},
    )
    assert await process.wait() == 0
    assert log.read_text().splitlines() == ["before", "told", str(tmp_path)]


async def test_a_child_leads_its_own_group_and_knows_its_parent(tmp_path: Path) -> None:
    code = f"import os; print(os.getpgid(0) == os.getpid(), os.environ['{PARENT_VARIABLE}'])"
    process = await spawn([sys.executable, "-c", code], log=tmp_path / "log")
    await process.wait()
    assert (tmp_path / "log").read_text() == f"True {os.getpid()}\n"


async def test_a_command_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-such-command"):
        await spawn(["no-such-command"], log=tmp_path / "log")


async def test_stop_asks_first(tmp_path: Path) -> None:
    process = await spawn([sys.executable, "-c", READY_THEN_WAIT], log=tmp_path / "log")
    await first_line(tmp_path / "log")
    assert await asyncio.wait_for(process.stop(grace_seconds=60), 20) == -signal.SIGTERM


async def test_stop_kills_who_does_not_listen(tmp_path: Path) -> None:
    process = await spawn([sys.executable, "-c", DEAF], log=tmp_path / "log")
    await first_line(tmp_path / "log")
    assert await asyncio.wait_for(process.stop(grace_seconds=0.05), 20) == -signal.SIGKILL


async def test_stop_takes_the_whole_group(tmp_path: Path) -> None:
    process = await spawn([sys.executable, "-c", FAMILY], log=tmp_path / "log")
    grandchild = int(await first_line(tmp_path / "log"))
    await asyncio.wait_for(process.stop(grace_seconds=60), 20)
    await ended(grandchild)


async def test_what_a_dead_child_leaves_in_its_group_is_killed_at_once(tmp_path: Path) -> None:
    process = await spawn([sys.executable, "-c", FAMILY], log=tmp_path / "log")
    grandchild = int(await first_line(tmp_path / "log"))
    process.signal(signal.SIGUSR1)
    assert await process.wait() == -signal.SIGUSR1
    await ended(grandchild)


async def test_stopping_twice_gives_the_same_status(tmp_path: Path) -> None:
    process = await spawn([sys.executable, "-c", "raise SystemExit(7)"], log=tmp_path / "log")
    assert await process.wait() == 7
    assert await process.stop(grace_seconds=1) == 7
    assert await process.stop(grace_seconds=1) == 7


async def test_the_number_of_a_child_that_ended_is_not_signalled(tmp_path: Path) -> None:
    """By then it may belong to somebody else."""
    ended_child = await spawn([sys.executable, "-c", ""], log=tmp_path / "log")
    await ended_child.wait()
    stranger = await spawn([sys.executable, "-c", READY_THEN_WAIT], log=tmp_path / "stranger")
    await first_line(tmp_path / "stranger")
    ended_child._process.pid = stranger.pid  # as if the kernel had given the number away
    ended_child.signal(signal.SIGKILL)
    assert await ended_child.stop(grace_seconds=0) == 0
    assert await stranger.stop(grace_seconds=60) == -signal.SIGTERM


@pytest.mark.parametrize(
    "name",
    [
        "TUNELOOM_TRAINER_REGISTRY_TOKEN",
        "TUNELOOM_HOME",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "MY_PASSWORD",
        "DATABASE_URL",
        "PGPASSFILE",
    ],
)
async def test_a_child_learns_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "canary")
    assert environment(Inherit.ALL)[name] == "canary"
    process = await spawn([sys.executable, "-c", "import os; print(os.environ)"], log=tmp_path / "log")
    await process.wait()
    assert "canary" not in (tmp_path / "log").read_text()
    assert "'PATH'" in (tmp_path / "log").read_text()


async def test_what_a_child_writes_is_private(tmp_path: Path) -> None:
    process = await spawn([sys.executable, "-c", "open('made', 'w')"], log=tmp_path / "log", cwd=tmp_path)
    await process.wait()
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0


async def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    child = f"from tuneloom_common.children import die_with_parent; die_with_parent(); {READY_THEN_WAIT}"
    parent = f"""
import asyncio, sys
from pathlib import Path
from tuneloom_common.children import spawn

async def main():
    process = await spawn([sys.executable, "-c", {child!r}], log=Path({str(tmp_path / "log")!r}))
    print(process.pid, flush=True)
    await process.wait()

asyncio.run(main())
"""
    process = await spawn([sys.executable, "-c", parent], log=tmp_path / "parent")
    pid = int(await first_line(tmp_path / "parent"))
    assert await first_line(tmp_path / "log") == "ready"
    process.signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    await ended(pid)


async def test_a_child_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    code = "from tuneloom_common.children import die_with_parent; die_with_parent(); print('alive')"
    done = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env={**os.environ, PARENT_VARIABLE: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await done.communicate()
    assert (done.returncode, out) == (1, b"")
    assert b"the parent process is gone" in err


def test_a_process_nobody_spawned_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    die_with_parent()


def test_last_lines_is_for_error_messages(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == ""
    log.write_bytes(b"".join(b"line %d\n" % i for i in range(100)) + b"\xff\xfe")
    assert last_lines(log, 2).startswith("line 99\n")
