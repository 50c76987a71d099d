"""What a run was made on; a figure without it means nothing."""

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path


def describe() -> dict[str, str]:
    """Processor, kernel, and the versions of everything that takes part."""
    found = {
        "processors": f"{len(os.sched_getaffinity(0))} x {_processor()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "uvloop": version("uvloop"),
    }
    for name, command in {"HAProxy": ["haproxy", "-v"], "socat": ["socat", "-V"]}.items():
        with suppress(OSError, subprocess.SubprocessError):
            output = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
            words = output.stdout.split("ersion", 1)[1].split()
            found[name] = words[0]
    return found


def load_average() -> float:
    """How many processes ran or waited for a processor, over the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
