"""How `status` and `top` show what the admin endpoint says.

Names of hosts come from enclaves: what could be taken for a command to a terminal is replaced.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = ("draw", "plain")

Status = Mapping[str, Any]

ABSENT: Final = "-"
REPLACED: Final = "\N{REPLACEMENT CHARACTER}"

_BARS: Final = " ▁▂▃▄▅▆▇█"
_ONLY_WIDE: Final = frozenset(("CID", "Round trip", "Opened", "Stalls"))
"""Columns of enclaves that a narrow screen has no room for."""

SHOWN_ENDS: Final = 3

WIDE_COLUMNS: Final = 110
"""From here on, what to do about a refusal has a column of its own."""

_FAILURES: Final = frozenset(
    ("dial_refused", "dial_timeout", "lookup_failed", "no_such_name", "parent_away")
)
"""Reasons that are no decision of a policy."""


def draw(
    status: Status, streams: Status | None = None, *, width: int = 120, refusals: int = 10
) -> RenderableType:
    """Everything on one screen.

    Args:
        status: what /status says.
        streams: what /streams says; None to leave them out.
        width: columns of the screen, which tell how much history fits.
        refusals: how many are shown.
    """
    parts: list[RenderableType] = [
        _headline(status),
        _rates(status, width),
        _enclaves(status, width),
    ]
    if streams is not None and streams["streams"]:
        parts.append(_streams(streams))
    parts.append(_refusals(status, refusals, width))
    if status["ends"]:
        parts.append(_ends(status))
    parts.append(_workers(status))
    return Group(*parts)


def plain(value: object) -> str:
    """Text that a terminal shows as it is, whoever it comes from."""
    return "".join(each if each.isprintable() else REPLACED for each in str(value))


def _headline(status: Status) -> RenderableType:
    is_ready = status["ready"]
    line = Text()
    line.append("vsockproxy ", style="bold")
    line.append(plain(status["version"]))
    line.append("   ")
    if is_ready:
        line.append("● ready", style="bold green")
    else:
        line.append(f"● not ready: {plain(status['not_ready'])}", style="bold red")
    if status["started_at"] is not None:
        up = _duration(status["time"] - status["started_at"])
        line.append(f"   up {up}   process {status['pid']}", style="dim")
    line.append(f"   {_clock(status['time'])} UTC", style="dim")
    return line


def _rates(status: Status, width: int) -> RenderableType:
    totals, history = status["totals"], status["history"]
    room = max(10, min(60, width // 3 - 12))
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in range(3):
        table.add_column(ratio=1)
    refused_style = "bold red" if totals["refused"] else "bold"
    cells = (
        ("Out", "rate_out", "bytes_out", "out", "blue"),
        ("In", "rate_in", "bytes_in", "in", "green"),
        ("Streams", "streams_open", "streams_opened", "streams", "magenta"),
    )
    panels = []
    for title, value, total, past, colour in cells:
        text = Text(no_wrap=True, overflow="ellipsis")
        if past == "streams":
            text.append(f"{totals[value]:,}", style=f"bold {colour}")
            text.append(f"  {totals[total]:,} opened\n", style="dim")
        else:
            text.append(f"{_bytes(totals[value])}/s", style=f"bold {colour}")
            text.append(f"  {_bytes(totals[total])} in all\n", style="dim")
        text.append(_bars(history[past], room), style=colour)
        panels.append(Panel(text, title=title, title_align="left", border_style="dim", height=4))
    table.add_row(*panels)
    line = Text("  ")
    for name, number, style in (
        ("links", totals["links_up"], "bold"),
        ("allowed", totals["allowed"], "bold green"),
        ("refused", totals["refused"], refused_style),
        ("names asked", totals["resolves"], "bold"),
        ("credit stalls", totals["credit_stalls"], "bold"),
        ("log lines lost", totals["log_lines_dropped"], _alarm(totals["log_lines_dropped"])),
        ("worker restarts", totals["worker_restarts"], _alarm(totals["worker_restarts"])),
    ):
        line.append(f"{name} ", style="dim")
        line.append(f"{number:,}   ", style=style)
    return Group(table, line)


def _alarm(number: int) -> str:
    return "bold red" if number else "bold"


def _table(title: str, columns: Sequence[tuple[str, bool]], note: str = "") -> Table:
    heading = Text(f"\n{title}", style="bold")
    if note:
        heading.append(f"  {note}", style="dim not bold")
    table = Table(
        title=heading,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        expand=True,
        header_style="dim",
        pad_edge=False,
        show_edge=False,
    )
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    return table


def _enclaves(status: Status, width: int) -> RenderableType:
    is_wide = width >= WIDE_COLUMNS
    columns = {
        "Enclave": False,
        "": False,
        "CID": True,
        "Links": True,
        "Round trip": True,
        "Streams": True,
        "Opened": True,
        "Out": True,
        "In": True,
        "Refused": True,
        "Stalls": True,
    }
    shown = [name for name in columns if is_wide or name not in _ONLY_WIDE]
    table = _table("Enclaves", [(name, columns[name]) for name in shown])
    for each in status["enclaves"]:
        measured = (link["round_trip_seconds"] for link in each["links"])
        trips = sorted(seconds for seconds in measured if seconds is not None)
        is_up = each["links_up"] > 0
        cells: dict[str, str | Text] = {
            "Enclave": Text(plain(each["label"]), style="bold"),
            "": Text("up", style="green") if is_up else Text("away", style="yellow"),
            "CID": ", ".join(map(str, each["cids"])) or ABSENT,
            "Links": f"{each['links_up']:,}",
            "Round trip": f"{trips[len(trips) // 2] * 1000:.2f} ms" if trips else ABSENT,
            "Streams": f"{each['streams_open']:,}",
            "Opened": f"{each['streams_opened']:,}",
            "Out": Text(f"{_bytes(each['rate_out'])}/s", style="blue"),
            "In": Text(f"{_bytes(each['rate_in'])}/s", style="green"),
            "Refused": Text(f"{each['refused']:,}", style="red" if each["refused"] else ""),
            "Stalls": f"{each['credit_stalls']:,}",
        }
        table.add_row(*(cells[name] for name in shown))
    if not status["enclaves"]:
        table.add_row(Text("none has connected yet", style="dim"))
    return table


def _streams(page: Status) -> RenderableType:
    more = page["more"]
    note = f"the newest {len(page['streams'])}, and {more:,} more" if more else "the newest first"
    table = _table(
        "Streams",
        (
            *(("Enclave", False), ("Destination", False), ("Address", False), ("Rule", False)),
            *(("Age", True), ("Out", True), ("In", True)),
        ),
        note,
    )
    for each in page["streams"]:
        table.add_row(
            Text(plain(each["enclave"] or each["cid"])),
            Text(plain(f"{each['host']}:{each['port']}"), overflow="ellipsis"),
            Text(plain(each["address"] or ABSENT), style="dim"),
            Text(plain(each["rule"] or ABSENT), style="dim", overflow="ellipsis"),
            _duration(each["age_seconds"]),
            _bytes(each["bytes_out"]),
            _bytes(each["bytes_in"]),
        )
    return table


def _refusals(status: Status, shown: int, width: int) -> RenderableType:
    total = status["totals"]["refused"]
    rows = status["refusals"][:shown]
    is_wide = width >= WIDE_COLUMNS
    table = _table(
        "Last refusals",
        (("Time", False), ("Enclave", False), ("Reason", False)),
        f"{len(rows)} of {total:,}" if total else "",
    )
    table.add_column("Destination", overflow="fold", ratio=2 if is_wide else 1)
    if is_wide:
        table.add_column("What to do", overflow="fold", ratio=5)
    for each in rows:
        port = f":{each['port']}" if each["port"] else ""
        style = "yellow" if each["reason"] in _FAILURES else "red"
        destination = Text(plain(f"{each['host']}{port}"))
        advice = Text(plain(each["text"]), style="dim")
        table.add_row(
            Text(_clock(each["time"]), style="dim"),
            Text(plain(each["enclave"] or each["cid"])),
            Text(plain(each["reason"]), style=style),
            *((destination, advice) if is_wide else (Group(destination, advice),)),
        )
    if not rows:
        table.add_row(Text("none", style="dim"))
    return table


def _ends(status: Status) -> RenderableType:
    table = _table(
        "Last ends of enclaves",
        (("Time", False), ("Enclave", False), ("Status", False), ("After", True)),
    )
    table.add_column("Its last line", overflow="fold", ratio=1)
    for each in status["ends"][:SHOWN_ENDS]:
        signal = f" {each['signal']}" if each["signal"] else ""
        last_line = each["last_lines"][-1] if each["last_lines"] else ABSENT
        table.add_row(
            Text(_clock(each["time"]), style="dim"),
            Text(plain(each["enclave"] or each["cid"])),
            Text(plain(f"{each['status']}{signal}"), style="red" if each["status"] else "green"),
            _duration(each["up_seconds"]),
            Text(plain(last_line), style="dim"),
        )
    return table


def _workers(status: Status) -> RenderableType:
    line = Text("\nWorkers  ", style="bold")
    for each in status["workers"]:
        style = "green" if each["state"] == "ready" else "red"
        line.append(f" {each['worker']} ", style="bold")
        line.append(each["state"], style=f"{style} not bold")
        load = f" {each['streams_open']:,} streams, {each['deaths']} restarts  "
        line.append(load, style="dim not bold")
    return line


def _bars(values: Sequence[float], room: int) -> str:
    """The last values as a row of blocks, the highest of them full."""
    last = list(values)[-room:]
    most = max(last, default=0)
    if not most:
        return "▁" * len(last)
    return "".join(_BARS[max(1, round(value / most * (len(_BARS) - 1)))] for value in last)


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit, less, small in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // less:.0f} {small}"
    return f"{seconds:.0f} s"


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S")
