"""The environment of the user's command: how programs learn of the ways in. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from vsockproxy.addresses import TcpAddress
from vsockproxy.client.location import VARIABLE
from vsockproxy.config.model import Shim
from vsockproxy.credentials.locations import CONTAINER_PATH, REGION_VARIABLES
from vsockproxy.nsm_locations import NSM_VARIABLE

__all__ = ("command_environment", "kms_endpoint", "overriding", "past_proxies", "with_credentials")

NO_PROXY: Final = "localhost,127.0.0.1,::1"

_PROXY_VARIABLES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_NO_PROXY_VARIABLES: Final = ("NO_PROXY", "no_proxy")
_NEVER: Final = ("ALL_PROXY", "all_proxy")
"""Programs would send everything there, and few agree on what it means."""

_OTHER_CREDENTIALS: Final = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
"""SDKs would follow these instead, and they lead to another machine's."""

_BEFORE_OURS: Final = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Where every SDK looks for credentials before it asks an endpoint."""

_IGNORE_ENDPOINTS: Final = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"

_ROOTS: Final = "AWS_CA_BUNDLE"

_LOOPBACK_FOR: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to connect to what listens on every address."""


def command_environment(
    inherited: Mapping[str, str],
    shim: Shim,
    *,
    http_proxy: TcpAddress | None,
    names_are_active: bool,
    streams: str | None,
) -> dict[str, str]:
    """All variables of the command.

    Args:
        inherited: the variables of this process. What it says of proxies is replaced, or removed
            where names need none, since it is about another network; with `environment: false` it
            is left alone.
        shim: the section of the configuration file.
        http_proxy: where the HTTP proxy listens; None if it does not.
        names_are_active: whether programs reach names without a proxy.
        streams: where the stream socket is; None if it does not listen.
    """
    variables = dict(inherited)
    if names_are_active and shim.environment is not False:
        for name in (*_PROXY_VARIABLES, *_NO_PROXY_VARIABLES):
            variables.pop(name, None)
    is_wanted = shim.environment if shim.environment is not None else not names_are_active
    if is_wanted and http_proxy is not None:
        host = _LOOPBACK_FOR.get(http_proxy.host, http_proxy.host)
        bracketed = f"[{host}]" if ":" in host else host
        url = f"http://{bracketed}:{http_proxy.port}"
        variables |= dict.fromkeys(_PROXY_VARIABLES, url)
        variables |= dict.fromkeys(_NO_PROXY_VARIABLES, NO_PROXY)
    if shim.environment is not False:
        for name in _NEVER:
            variables.pop(name, None)
    for name in (VARIABLE, NSM_VARIABLE):  # outer ones, which the command is not to use
        variables.pop(name, None)
    if streams is not None:
        variables[VARIABLE] = streams
    return variables


def with_credentials(
    variables: Mapping[str, str], listen: TcpAddress, secret: str, region: str | None
) -> dict[str, str]:
    """The variables, and those by which AWS's SDKs find our endpoint for credentials.

    Keys in the environment (AWS_ACCESS_KEY_ID) still come first for every SDK, and are left alone.

    Args:
        variables: of the command.
        listen: where the endpoint listens.
        secret: what requests have to show.
        region: what the configuration says of the region, if it does.
    """
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    kept = {name: value for name, value in variables.items() if name not in _OTHER_CREDENTIALS}
    # What an image says in one of them goes for both.
    inherited = [kept[name] for name in REGION_VARIABLES if kept.get(name)]
    regions: dict[str, str] = {}
    if region is not None:
        regions = dict.fromkeys(REGION_VARIABLES, region)
    elif len(inherited) == 1:
        regions = dict.fromkeys(REGION_VARIABLES, inherited[0])
    return {
        **kept,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{host}:{listen.port}{CONTAINER_PATH}",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": secret,
        **regions,
    }


def past_proxies(variables: Mapping[str, str], hosts: Iterable[str]) -> dict[str, str]:
    """The variables, and by them hosts in the command's own network, which no proxy reaches.

    Args:
        variables: of the command; where there is no NO_PROXY they are returned as they are.
        hosts: addresses, as URLs have them.
    """
    found = dict(variables)
    for name in _NO_PROXY_VARIABLES:
        if name in found:
            named = [found[name], *hosts]
            found[name] = ",".join(dict.fromkeys(",".join(named).split(",")))
    return found


def overriding(variables: Mapping[str, str], *, has_kms: bool) -> list[str]:
    """Lines on variables of the command that SDKs follow in place of ours; no values.

    Args:
        variables: of the command, which gets credentials.
        has_kms: whether it gets our endpoint for KMS, too.
    """
    lines = [
        f"{name} is set: SDKs take it before the credentials of the instance's role"
        for name in _BEFORE_OURS
        if variables.get(name)
    ]
    if variables.get(_ROOTS):
        lines.append(f"{_ROOTS} is set: SDKs trust the roots there in place of the image's")
    if has_kms and variables.get(_IGNORE_ENDPOINTS, "").lower() == "true":
        lines.append(f"{_IGNORE_ENDPOINTS} is true: SDKs reach KMS past kms, without attestation")
    return lines


def kms_endpoint(listen: TcpAddress) -> dict[str, str]:
    """The variable by which AWS's SDKs find our endpoint for KMS ("Service-specific endpoints")."""
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return {"AWS_ENDPOINT_URL_KMS": f"http://{host}:{listen.port}"}
