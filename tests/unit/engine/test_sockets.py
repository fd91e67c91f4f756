from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tuneloom_common.errors import FailedPrecondition
from tuneloom_engine.sockets import PREFIX, SocketDirectory

NOBODY = 2**22 + 1


@pytest.fixture
def short_path() -> Iterator[Path]:
    """pytest's own are longer than sockets bear."""
    with TemporaryDirectory(prefix="s-") as directory:
        yield Path(directory)


def test_only_its_user_enters(short_path: Path) -> None:
    with SocketDirectory.create(short_path) as sockets:
        assert stat.S_IMODE(sockets.directory.stat().st_mode) == 0o700
        paths = [sockets.next() for _ in range(3)]
        assert len({*paths, sockets.adapters}) == 4
        assert {path.parent for path in paths} == {sockets.directory}
    assert list(short_path.iterdir()) == []


def test_what_a_killed_host_left_is_removed(short_path: Path) -> None:
    for pid in (NOBODY, os.getpid()):
        (short_path / f"{PREFIX}{pid}-x").mkdir()
    with SocketDirectory.create(short_path):
        pass
    assert [path.name for path in short_path.iterdir()] == [f"{PREFIX}{os.getpid()}-x"]


def test_a_path_too_long_for_sockets_is_named_with_its_setting(tmp_path: Path) -> None:
    with (
        pytest.raises(FailedPrecondition, match="TUNELOOM_ENGINE_SOCKET_DIR"),
        SocketDirectory.create(tmp_path / ("d" * 100)),
    ):
        pass
    assert list((tmp_path / ("d" * 100)).iterdir()) == []
