"""python -m tests.databases.runners URL PROCESSES LOG: so many processes claim jobs until none is left.

Each writes a line "JOB EPOCH PID" at the beginning of a job and ends it as succeeded.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

from tuneloom_common.database import Limits, open_database
from tuneloom_common.notifier import Notifier
from tuneloom_trainer.jobs import JobState
from tuneloom_trainer.store import JobQueue


async def work(url: str, log: int) -> None:
    database = await open_database(url, migrations="tuneloom_trainer.migrations", limits=Limits(lock_seconds=60))
    queue = JobQueue(database, lease=timedelta(seconds=300), max_attempts=3, notifier=Notifier())
    while (job := await queue.claim()) is not None:
        os.write(log, f"{job.id} {job.lease_epoch} {os.getpid()}\n".encode())
        await queue.enter_running(job)
        await queue.finish(job, JobState.SUCCEEDED)
    await database.dispose()


def main(url: str, processes: int, path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    children = []
    for _ in range(processes):  # forked after the imports, which cost more than the work
        child = os.fork()
        if child == 0:
            asyncio.run(work(url, log))
            os._exit(0)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
