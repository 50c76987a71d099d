"""Endpoints as options of commands."""

import click

from vsockproxy.addresses import AddressError, UnixAddress, parse_endpoint

__all__ = ("unix_address",)


def unix_address(context: click.Context, option: click.Parameter, text: str) -> UnixAddress:
    """The value of an option that is a unix socket; a click callback.

    Raises:
        click.BadParameter: it is none.
    """
    del context, option
    try:
        endpoint = parse_endpoint(text)
    except AddressError as error:
        raise click.BadParameter(str(error)) from None
    if not isinstance(endpoint, UnixAddress):
        raise click.BadParameter(f"{text!r} is no unix socket: write unix:///PATH")
    return endpoint
