"""The URL of a service of AWS, where a file names another than the region's own."""

from typing import Final

from vsockproxy.addresses import AddressError, Destination, parse_destination

__all__ = ("parse_endpoint_url",)

HTTPS_PORT: Final = 443
_SCHEME: Final = "https://"


def parse_endpoint_url(text: str) -> Destination:
    """Parse `https://HOST[:PORT]`; the port is 443 unless it says another.

    Raises:
        AddressError: it is none.
    """
    shown = repr(text if len(text) <= 80 else f"{text[:80]}…")
    write = "write https://HOST or https://HOST:PORT"
    if not text.startswith(_SCHEME):
        raise AddressError(f"{shown} is no https:// URL", write)
    rest = text.removeprefix(_SCHEME).removesuffix("/")
    if any(character in rest for character in "/?#@"):
        raise AddressError(f"{shown} has more than a host and a port", write)
    has_port = rest.rpartition(":")[2].isdigit() and not rest.endswith("]")
    destination = parse_destination(rest if has_port else f"{rest}:{HTTPS_PORT}")
    if str(destination) != (rest if has_port else f"{rest}:{HTTPS_PORT}"):
        raise AddressError(f"{shown} is not in normal form", f"write {_SCHEME}{destination}")
    return destination
