"""What gRPC repeats by itself: every call that may be repeated, for about a second, which covers a dropped connection.

Callers with work to lose wait out a restart with `tuneloom_common.patience`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence


def retry_config(service: str, methods: Sequence[str]) -> str:
    """gRPC's service config: these methods of a service are tried four times within about a second.

    When half of the calls fail, the throttle ends the repeating: a service that is down is not asked four times
    as often.
    """
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [{"service": service, "method": method} for method in methods]
    return json.dumps(
        {
            "methodConfig": [{"name": names, "retryPolicy": policy}],
            "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
        }
    )
