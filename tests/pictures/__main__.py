"""Makes the pictures of docs/ from a real run: the admin page, and `vsockproxy top`.

python -m tests.pictures [--seconds 100] [--directory docs]
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.pictures.scene import scene
from tests.support.browser import picture

ROOT = Path(__file__).parents[2]
COLUMNS = 132


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--directory", type=Path, default=ROOT / "docs")
    parser.add_argument("--all", action="store_true", help="narrow and dark ones too")
    options = parser.parse_args()
    directory: Path = options.directory.resolve()
    with scene(options.seconds) as running:
        picture(running.admin, directory / "admin-page.png", size=(1280, 1000))
        if options.all:
            picture(running.admin, directory / "dark.png", size=(1280, 1000), is_dark=True)
            picture(running.admin, directory / "narrow.png", size=(500, 1800))
        endpoint = f"unix://{running.admin}"
        (directory / "top.svg").write_text(_top(endpoint), encoding="utf-8")
        if options.all:
            subprocess.run(
                [sys.executable, "-m", "vsockproxy", "status", "--admin", endpoint], check=False
            )
    return 0


def _top(endpoint: str) -> str:
    """What `vsockproxy top --once` prints, as a picture."""
    from rich.console import Console

    from vsockproxy.cli.admin_client import ask
    from vsockproxy.cli.status_view import draw

    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        status = ask(endpoint, "/status")
        page = ask(endpoint, "/streams?limit=8")
        console.print(draw(status, page, width=COLUMNS, refusals=7))
        return console.export_svg(title="vsockproxy top")


if __name__ == "__main__":
    sys.exit(main())
