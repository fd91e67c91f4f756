"""How many file descriptors the process may have, and what they are for."""

from __future__ import annotations

import resource
from dataclasses import dataclass

# The registry's channel, logs, the listener, the event loop, and a burst of connections not yet judged.
RESERVED = 128
MOST_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Every request needs two, its client's and its engine's: half of them is for clients."""

    limit: int

    @classmethod
    def of_this_process(cls) -> Descriptors:
        """Raises the soft limit to the hard one first."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return cls(hard if hard != resource.RLIM_INFINITY else 4 * MOST_CONNECTIONS)

    @property
    def connections(self) -> int:
        return max(8, min(MOST_CONNECTIONS, (self.limit - RESERVED) // 2))

    @property
    def backlog(self) -> int:
        """Connections may come in as fast as they are refused; those must not use up what is for engines."""
        return max(16, min(2048, self.limit // 16))
