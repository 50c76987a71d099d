"""What is no error in an enclave's file with `kms`, and fails all the same when KMS is called."""

from collections.abc import Callable, Iterator

from vsockproxy.config.document import Document, line_of
from vsockproxy.config.endpoint_url import parse_endpoint_url
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.model import EnclaveConfig, EnclaveKms
from vsockproxy.config.patterns import parse_pattern
from vsockproxy.config.rule_index import RuleIndex

__all__ = ("advise_kms",)

EndpointHost = Callable[[str, str], str]
"""The host of a service in a region."""

NeedsPrivate = Callable[[str], bool]
"""Whether a rule for a host has to say `private: true`."""

HTTPS_PORT = 443


def advise_kms(
    document: Document, endpoint_host: EndpointHost, needs_private: NeedsPrivate
) -> Iterator[ConfigError]:
    """Warn of each endpoint of KMS that the file leads to, and does not allow.

    Without `kms.endpoints` and `credentials.region` the file does not say which one that is.

    Args:
        document: any file.
        endpoint_host: as AWS names them.
        needs_private: by the address guard.
    """
    config = document.config
    if not isinstance(config, EnclaveConfig) or config.kms is None or config.mode == "report":
        return
    allowed = RuleIndex("allowlist", config.allowlist)
    denied = RuleIndex("denylist", config.denylist)
    for path, host, port in _endpoints(config, config.kms, endpoint_host):
        span = ((port, port),)
        pattern = parse_pattern(host)
        if allowed.uncovered(pattern, span):
            what = f"{host} port {port} is not in the allowlist"
            address = f'"{host}"' if ":" in host else host
            flag = ", private: true" if needs_private(host) else ""
            mend = f"add {{address: {address}, port: {port}{flag}}} to allowlist"
        elif not denied.uncovered(pattern, span):
            what = f"{host} port {port} is denied"
            mend = "remove it from denylist"
        else:
            continue
        yield ConfigError(document.file, line_of(document.lines, path), path, what, mend)


def _endpoints(
    config: EnclaveConfig, kms: EnclaveKms, endpoint_host: EndpointHost
) -> Iterator[tuple[str, str, int]]:
    for region, url in kms.endpoints.items():
        destination = parse_endpoint_url(url)
        yield f"kms.endpoints.{region}", destination.host.text, destination.port
    own = config.credentials.region if config.credentials is not None else None
    if own is not None and own not in kms.endpoints:
        host = endpoint_host("kms-fips" if kms.fips else "kms", own)
        yield "credentials.region", host, HTTPS_PORT
