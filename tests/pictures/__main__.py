"""Makes the pictures of docs/ from a real run: the admin page, and `vsockproxy top`.

python -m tests.pictures [--seconds 150] [--directory docs]
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.pictures.scene import scene
from tests.support.browser import picture, picture_of_file

ROOT = Path(__file__).parents[2]
COLUMNS = 132
PAGE = (1280, 1600)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--directory", type=Path, default=ROOT / "docs")
    parser.add_argument("--all", action="store_true", help="narrow and dark ones too")
    options = parser.parse_args()
    directory: Path = options.directory.resolve()
    with scene(options.seconds) as running:
        picture(running.admin, directory / "admin-page.png", size=PAGE)
        if options.all:
            picture(running.admin, directory / "dark.png", size=(1280, 1000), is_dark=True)
            picture(running.admin, directory / "narrow.png", size=(500, 1800))
        endpoint = f"unix://{running.admin}"
        _draw_top(endpoint, directory / "top.png")
        if options.all:
            subprocess.run(
                [sys.executable, "-m", "vsockproxy", "status", "--admin", endpoint], check=False
            )
    return 0


def _draw_top(endpoint: str, file: Path) -> None:
    """What `vsockproxy top --once` prints, as a picture."""
    from rich.console import Console
    from rich.terminal_theme import SVG_EXPORT_THEME

    from vsockproxy.cli.admin_client import ask
    from vsockproxy.cli.status_view import draw

    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        status = ask(endpoint, "/status")
        page = ask(endpoint, "/streams?limit=8")
        console.print(draw(status, page, width=COLUMNS, refusals=7))
        drawn = console.export_svg(title="vsockproxy top", theme=SVG_EXPORT_THEME)
    # The drawing asks for a font from elsewhere: it gets one of this machine.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code", "DejaVu Sans Mono")
    width, height = re.findall(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', drawn)[0]
    size = (round(float(width)), round(float(height)))
    with tempfile.TemporaryDirectory(prefix="vsockproxy-drawing-") as directory:
        drawing = Path(directory) / "top.svg"
        drawing.write_text(drawn, encoding="utf-8")
        picture_of_file(drawing, file, size=size, scale=0.9)


if __name__ == "__main__":
    sys.exit(main())
