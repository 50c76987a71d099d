"""Where credentials are found: names of services and paths of endpoints."""

from typing import Final

__all__ = ("CONTAINER_PATH", "CREDENTIALS_PATH", "HEALTH_PATH", "REGION_NAME_PATH", "SERVICE")

SERVICE: Final = "vsockproxy.credentials"
"""The parent's service, which leads to `vsockproxy credentials`; it speaks HTTP."""

CREDENTIALS_PATH: Final = "/credentials"
REGION_NAME_PATH: Final = "/region"
HEALTH_PATH: Final = "/healthz"
"""Of `vsockproxy credentials`."""

CONTAINER_PATH: Final = "/credentials"
"""Of the endpoint that AWS_CONTAINER_CREDENTIALS_FULL_URI names."""
