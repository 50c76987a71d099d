"""The process for the services of the enclave's own, on trio."""

import trio

from enclave_side.services.credentials import ParentCredentials, serve_credentials
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.control.service_process import ServiceProcess, run_service
from vsockproxy.nsm_device import Nsm
from vsockproxy.processes import forbid_tracing
from vsockproxy.services.credentials_keeper import CredentialsKeeper

__all__ = ("main",)


async def _serve(process: ServiceProcess) -> None:
    config = process.document.config
    assert isinstance(config, EnclaveConfig)  # the supervisor loaded an enclave's file
    async with trio.open_nursery() as nursery:
        if config.wanted_credentials is not None:
            keeper = _make_keeper(config, process)
            nursery.start_soon(keeper.run)
            nursery.start_soon(serve_credentials, process, keeper)
            if config.kms is not None:
                # Only here, since it needs the extra `trust`.
                from enclave_side.services.kms import serve_kms

                nursery.start_soon(serve_kms, process, keeper, Nsm(config.nsm_location))
        if config.has_software_nsm:
            # Here, since it loads a package of the extra `trust`.
            from enclave_side.services.software_nsm import serve_software_nsm

            nursery.start_soon(serve_software_nsm, process)
        if any(each.tls is not None for each in config.ingress):
            # Here, since it loads a package of the extra `trust`.
            from enclave_side.services.certificates import keep_certificates

            nursery.start_soon(keep_certificates, process)


def _make_keeper(config: EnclaveConfig, process: ServiceProcess) -> CredentialsKeeper:
    """What holds the parent's credentials, for all who need them."""
    streams = config.shim.streams
    assert streams is not None  # a rule of the configuration
    parent = ParentCredentials(streams)
    region = None if config.credentials is None else config.credentials.region
    return CredentialsKeeper(
        parent.fetch_credentials,
        parent.fetch_region if region is None else None,
        process.log,
        region=region,
    )


def main() -> None:
    """Run as a process of services of the enclave."""
    forbid_tracing()
    run_service("enclave", _serve)


if __name__ == "__main__":
    main()
