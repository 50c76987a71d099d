import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.program import environment

IN_CONTAINER = [sys.executable, "-m", "tests.support.one_process_namespace"]
SHOW = """
import sys
from enclave_side.mounts import mount_missing
print(mount_missing(is_whole=False))
print(open("/proc/self/mountinfo").read())
"""

OWN_MOUNTS_IN_A_CHROOT = """
import os, sys
from enclave_side.namespaces import Namespace, map_to_root, unshare
from enclave_side.system_files import own_mounts
user, group = os.geteuid(), os.getegid()
unshare(Namespace.USER | Namespace.MOUNT)
map_to_root(user, group)
os.chroot(sys.argv[1])
os.chdir("/")
own_mounts()
print("mounts of our own")
"""


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    if done.returncode == NOT_PERMITTED:
        pytest.skip(f"not permitted here: {done.stderr}")
    return done


def targets(mountinfo: str) -> list[str]:
    return [line.split()[4] for line in mountinfo.splitlines() if line]


@pytest.mark.skipif(not os.access("/run", os.W_OK), reason="needs a /run that can be written to")
def test_in_a_container_that_has_everything_nothing_is_mounted() -> None:
    count = "print(len(open('/proc/self/mountinfo').readlines()))"
    mount = "from enclave_side.mounts import mount_missing\nmount_missing(is_whole=False)"
    script = f"{count}\n{mount}\n{count}"
    before, after = run([*IN_CONTAINER, sys.executable, "-c", script]).stdout.split()
    assert before == after


def test_in_a_container_what_is_missing_is_mounted_and_tmp_stays_as_it_is() -> None:
    script = 'umount /dev/shm 2>/dev/null; exec "$@"'
    done = run([*IN_CONTAINER, "sh", "-c", script, "sh", sys.executable, "-c", SHOW])
    left_out, _, mountinfo = done.stdout.partition("\n")
    assert done.returncode == 0, done.stderr
    assert "/dev/shm" in targets(mountinfo)
    assert "/tmp" not in left_out
    assert targets(mountinfo).count("/tmp") <= 1


def test_mounts_of_our_own_can_be_had_in_a_chroot(tmp_path: object) -> None:
    done = run([sys.executable, "-c", OWN_MOUNTS_IN_A_CHROOT, str(tmp_path)])
    if "new user + mount namespaces" in done.stderr:
        pytest.skip("not permitted here: user namespaces")
    assert done.stdout == "mounts of our own\n", done.stderr
