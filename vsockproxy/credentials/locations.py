"""Where credentials and the region are found: services, paths, environment variables."""

from typing import Final

__all__ = (
    "CONTAINER_PATH",
    "CREDENTIALS_PATH",
    "HEALTH_PATH",
    "REGION_NAME_PATH",
    "REGION_VARIABLES",
    "SERVICE",
)

SERVICE: Final = "vsockproxy.credentials"
"""The parent's service, which leads to `vsockproxy credentials`; it speaks HTTP."""

CREDENTIALS_PATH: Final = "/credentials"
REGION_NAME_PATH: Final = "/region"
HEALTH_PATH: Final = "/healthz"
"""Of `vsockproxy credentials`."""

CONTAINER_PATH: Final = "/credentials"
"""Of the endpoint that AWS_CONTAINER_CREDENTIALS_FULL_URI names."""

REGION_VARIABLES: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""SDKs differ in which of them they read."""
