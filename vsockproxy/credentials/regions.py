"""Names of AWS regions, and the domain under which each one's endpoints are."""

import re
from typing import Final

from vsockproxy.credentials.errors import CredentialsError

__all__ = ("endpoint_host", "endpoint_suffix", "parse_region")

_REGION = re.compile(r"[a-z]{2,8}(?:-[a-z]{2,16}){1,3}-[0-9]{1,2}", re.ASCII)
"""As us-gov-east-1 and eu-isoe-west-1 are."""

_DEFAULT_SUFFIX: Final = "amazonaws.com"
_SUFFIX_BY_PREFIX: Final = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}
"""The partitions whose domain is another, as AWS's kmstool-enclave has them."""


def parse_region(text: str) -> str:
    """The name of a region.

    Raises:
        CredentialsError: it is none.
    """
    if not _REGION.fullmatch(text):
        raise CredentialsError(f"{text[:40]!r} is no region's name, as eu-west-1 is one")
    return text


def endpoint_suffix(region: str) -> str:
    """The domain of a region's endpoints: `amazonaws.com`, or that of its partition."""
    for prefix, suffix in _SUFFIX_BY_PREFIX.items():
        if region.startswith(prefix):
            return suffix
    return _DEFAULT_SUFFIX


def endpoint_host(service: str, region: str) -> str:
    """The host name of a service in a region, as `kms.eu-west-1.amazonaws.com`."""
    return f"{service}.{region}.{endpoint_suffix(region)}"
