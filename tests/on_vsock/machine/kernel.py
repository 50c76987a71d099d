"""Debian's User Mode Linux, fetched once and kept in the user's cache.

The packages come from suite `SUITE` of the mirror that apt already uses, with lists and caches of
their own, so the machine's own packages stay as they are; apt checks them against the archive's
signature. The kernel wants a newer C library than Debian 12 has and starts itself again by its own
path, so it cannot be run through another ld.so: its interpreter and library path are rewritten.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.on_vsock.machine.failure import MachineError
from tests.on_vsock.machine.mirror import find_mirror

SUITE = "forky"
"""Kernels of Debian 12 and 13 panic at boot on processors with AVX-512 or AMX; 7.2 does not."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

PACKAGES = ("user-mode-linux", "libc6", "libgcc-s1")

MODULES = ("vsock", "vmw_vsock_virtio_transport_common", "vsock_loopback", "veth")
"""Loaded in this order: the vsock loopback with what it needs, and pairs of network devices."""

PROGRAMS = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "patchelf": "patchelf",
    "insmod": "kmod",
    "ip": "iproute2",
}
"""What is run here or by the machine's init, and the package that has it."""

_LAYOUT = "kernel-1"
"""The name of the finished folder; a new number where what is in it changes."""

_FETCH_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that is ready to boot."""

    binary: Path
    modules: tuple[Path, ...]
    """To be loaded in this order."""


def default_cache() -> Path:
    """Where the kernel is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vsockproxy" / "vsock-machine"


def prepare(cache: Path) -> Kernel:
    """The kernel in `cache`, fetched first if it is not there yet.

    Raises:
        MachineError: a program is missing, or a package could not be had.
    """
    _check_programs()
    cache.mkdir(parents=True, exist_ok=True)
    ready = cache / _LAYOUT
    with _locked(cache / "lock"):
        if not ready.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as name:
                folder = Path(name)
                _fetch(folder)
                _assemble(folder / "root", folder / _LAYOUT, home=ready)
                (folder / _LAYOUT).rename(ready)
    return Kernel(ready / "linux", tuple(_module(ready / "modules", name) for name in MODULES))


def search_path() -> str:
    """PATH with the administrator's folders, which an ordinary user's may lack."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _check_programs() -> None:
    architecture = os.uname().machine
    if architecture != "x86_64":
        raise MachineError(f"User Mode Linux runs on x86_64 and this is {architecture}")
    missing = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    if missing:
        packages = " ".join(PROGRAMS[name] for name in missing)
        raise MachineError(f"{' and '.join(missing)} missing", f"apt-get install {packages}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(folder: Path) -> None:
    if not KEYRING.is_file():
        raise MachineError(f"{KEYRING} missing", "apt-get install debian-archive-keyring")
    for name in ("lists/partial", "cache/archives/partial", "packages", "root"):
        (folder / name).mkdir(parents=True)
    sources = folder / "sources.list"
    source = f"deb [signed-by={KEYRING}] {find_mirror()} {SUITE} main\n"
    sources.write_text(source, encoding="utf-8")
    settings = {
        "Dir::Etc::sourcelist": str(sources),
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": str(folder / "lists"),
        "Dir::Cache": str(folder / "cache"),
        "APT::Sandbox::User": "root",  # the download folder is the caller's own
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    options = [f"--option={name}={value}" for name, value in settings.items()]
    _run(["apt-get", *options, "--error-on=any", "update"], folder)
    wanted = [f"{name}/{SUITE}" for name in PACKAGES]
    _run(["apt-get", *options, "download", *wanted], folder / "packages")
    for package in sorted((folder / "packages").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(folder / "root")], folder)


def _assemble(root: Path, target: Path, *, home: Path) -> None:
    """Keep from the unpacked packages what a boot needs; `home` is where `target` will be moved."""
    (target / "lib").mkdir(parents=True)
    (target / "modules").mkdir()
    for library in (root / "usr/lib/x86_64-linux-gnu").glob("*.so*"):
        shutil.copy2(library, target / "lib")
    for name in MODULES:
        shutil.copy2(_module(root / "usr/lib/uml/modules", name), target / "modules")
    shutil.copy2(root / "usr/bin/linux.uml", target / "linux")
    rewrite = ["patchelf", "--set-interpreter", str(home / "lib/ld-linux-x86-64.so.2")]
    _run([*rewrite, "--set-rpath", str(home / "lib"), str(target / "linux")], target)


def _module(folder: Path, name: str) -> Path:
    found = sorted(folder.rglob(f"{name}.ko*"))
    if len(found) != 1:
        raise MachineError(f"kernel module {name} found {len(found)} times under {folder}")
    return found[0]


def _run(command: Sequence[str], folder: Path) -> None:
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{command[0]} took more than {_FETCH_SECONDS} s") from error
    if done.returncode != 0:
        last_words = " | ".join(done.stdout.strip().splitlines()[-5:])
        raise MachineError(f"{command[0]} ended with status {done.returncode}: {last_words}")
