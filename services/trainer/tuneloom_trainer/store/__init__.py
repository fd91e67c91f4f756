"""The trainer's metadata: what clients ask of jobs, and the queue that runners work through.

Every public method is one short transaction. Cancelling and pausing are requested by clients and observed by runners.
"""

from tuneloom_trainer.store.jobs import JobStore
from tuneloom_trainer.store.queue import JobQueue
from tuneloom_trainer.store.reports import Reports

__all__ = ["JobQueue", "JobStore", "Reports"]
