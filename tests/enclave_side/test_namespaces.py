import errno

import pytest

from enclave_side import namespaces
from enclave_side.namespaces import (
    Namespace,
    NamespaceError,
    mount,
    unshare,
    why_user_namespaces_fail,
)


@pytest.mark.parametrize(
    ("settings", "number", "wanted"),
    [
        pytest.param(
            {"user/max_user_namespaces": "0"},
            errno.ENOSPC,
            "sysctl -w user.max_user_namespaces=",
            id="switched off",
        ),
        pytest.param(
            {"kernel/unprivileged_userns_clone": "0"},
            errno.EPERM,
            "sysctl -w kernel.unprivileged_userns_clone=1",
            id="Debian's switch",
        ),
        pytest.param(
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            errno.EPERM,
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            id="Ubuntu's AppArmor",
        ),
        pytest.param(
            {"user/max_user_namespaces": "9"}, errno.ENOSPC, "raise it", id="too many of them"
        ),
        pytest.param({}, errno.EINVAL, "CONFIG_USER_NS", id="a kernel without them"),
        pytest.param({}, errno.EPERM, "seccomp", id="a container"),
    ],
)
def test_the_cause_and_the_mend(
    settings: dict[str, str], number: int, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "_setting", lambda name: settings.get(name, ""))
    assert wanted in why_user_namespaces_fail(number)


def test_an_error_names_the_step_the_kernels_word_and_the_cause() -> None:
    error = NamespaceError("mounting proc on /proc", errno.EPERM)
    assert str(error) == "mounting proc on /proc: Operation not permitted"
    assert str(error.because("it is masked")) == f"{error}: it is masked"
    assert error.because("x").number == errno.EPERM


def test_errno_of_a_failing_mount() -> None:
    with pytest.raises(NamespaceError, match="mounting nothing on /nowhere") as raised:
        mount("nothing", "/nowhere", "tmpfs")
    assert raised.value.number in (errno.ENOENT, errno.EPERM)


def test_errno_of_a_failing_unshare() -> None:
    with pytest.raises(NamespaceError) as raised:
        unshare(Namespace(1))  # which is none
    assert raised.value.number == errno.EINVAL
