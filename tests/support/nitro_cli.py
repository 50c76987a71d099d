"""A nitro-cli for tests: a program with a folder for its state, in place of a hypervisor.

Run as `python nitro_cli.py FOLDER COMMAND ...`, or through the script that `install` writes. It
keeps a file for each enclave, and a line for each call. An enclave ends when its file is removed;
commands fail while the folder has a file with their name and `.fails`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

LINES_FOR_PEOPLE = (
    "Start allocating memory...\nStarted enclave with enclave-cid: {cid}, cpu-ids: [1]\n"
)


def install(folder: Path) -> Path:
    """Write the program `nitro-cli` into `folder`, which also holds its state."""
    script = folder / "nitro-cli"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{folder}" "$@"\n')
    script.chmod(0o755)
    return script


def enclaves(folder: Path) -> list[dict[str, Any]]:
    """The enclaves that run, oldest first."""
    found = []
    for path in folder.glob("*.enclave"):
        try:
            found.append(json.loads(path.read_text()))
        except (FileNotFoundError, ValueError):
            continue  # it is ending, or only just begins
    return sorted(found, key=lambda each: int(each["ProcessID"]))


def end(folder: Path, enclave_id: str) -> None:
    """Have an enclave end by itself."""
    (folder / f"{enclave_id}.enclave").unlink()


def calls(folder: Path) -> list[list[str]]:
    """The arguments of all calls so far."""
    path = folder / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    folder, command, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    with (folder / "calls").open("a") as file:
        file.write(json.dumps([command, *arguments]) + "\n")
    if (folder / f"{command}.fails").exists():
        print(f"[ E36 ] {command} failed. Such error appears in tests.", file=sys.stderr)
        sys.exit(36)
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if command == "run-enclave":
        _run(folder, options, is_debug="--debug-mode" in arguments)
    elif command == "describe-enclaves":
        print(json.dumps(enclaves(folder), indent=2))
    elif command == "terminate-enclave":
        enclave_id = options["--enclave-id"]
        (folder / f"{enclave_id}.enclave").unlink(missing_ok=True)
        print(json.dumps({"EnclaveID": enclave_id, "Terminated": True}))
    elif command == "console":
        print("a line of the console", flush=True)
        print("Successfully connected to the console.", file=sys.stderr, flush=True)
        while (folder / f"{options['--enclave-id']}.enclave").exists():
            time.sleep(0.05)


def _run(folder: Path, options: dict[str, str], *, is_debug: bool) -> None:
    number = len([call for call in calls(folder) if call[0] == "run-enclave"])
    cid = int(options.get("--enclave-cid", 15 + number))
    enclave = {
        "EnclaveName": options["--enclave-name"],
        "EnclaveID": f"i-0123456789abcdef0-enc{number:016x}",
        "ProcessID": number,
        "EnclaveCID": cid,
        "NumberOfCPUs": int(options["--cpu-count"]),
        "CPUIDs": [1],
        "MemoryMiB": int(options["--memory"]),
        "State": "RUNNING",
        "Flags": "DEBUG_MODE" if is_debug else "NONE",
    }
    temporary = folder / f"{number}.new"
    temporary.write_text(json.dumps(enclave))
    temporary.rename(folder / f"{enclave['EnclaveID']}.enclave")
    sys.stdout.write(LINES_FOR_PEOPLE.format(cid=cid))
    print(json.dumps(enclave, indent=2))


if __name__ == "__main__":
    main()
