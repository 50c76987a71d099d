"""A program that knows nothing of us: calls STS with boto3 until it has seen enough credentials.

python -m tests.support.calls_with_boto3 URL ROTATIONS: prints the calls, the failures, the keys
seen and the regions, as JSON. The default chain of botocore finds the credentials.
"""

import json
import sys

import boto3  # type: ignore[import-untyped]  # it has no types
from botocore.config import Config  # type: ignore[import-untyped]  # it has no types
from botocore.exceptions import (  # type: ignore[import-untyped]  # it has no types
    BotoCoreError,
    ClientError,
)


def main() -> None:
    url, rotations = sys.argv[1], int(sys.argv[2])
    # A failed call has to count, so none is tried again.
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=10)
    client = boto3.client("sts", endpoint_url=url, config=config)
    seen: set[str] = set()
    failures: list[str] = []
    calls = 0
    while len(seen) <= rotations and len(failures) < 10:
        calls += 1
        try:
            seen.add(client.get_caller_identity()["Arn"])
        except (BotoCoreError, ClientError) as error:
            failures.append(repr(error))
    print(
        json.dumps(
            {
                "calls": calls,
                "failures": failures,
                "seen": len(seen),
                "region": client.meta.region_name,
            }
        )
    )


if __name__ == "__main__":
    main()
