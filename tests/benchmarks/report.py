"""Tables from samples: medians, and ratios of what was measured one right after the other."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from tests.benchmarks.measures import Figures

Samples = Mapping[str, Sequence[Figures]]
"""By subject, one entry for each repetition; none for a subject that is missing."""

_NAME_WIDTH = 26
_FIGURE_WIDTH = 12
_RATIO_WIDTH = 12


def table(title: str, samples: Samples, counterparts: Sequence[str]) -> Iterator[str]:
    """The lines of one table.

    Args:
        title: its first line.
        samples: what was measured.
        counterparts: subjects that the others are divided by, a group of columns for each.
    """
    figures = next((list(runs[0]) for runs in samples.values() if runs), [])
    present = [name for name in counterparts if samples.get(name)]
    yield title
    head = " " * _NAME_WIDTH + "".join(name.rjust(_FIGURE_WIDTH) for name in figures)
    groups = "".join(
        f"  / {name}".ljust(2 + _RATIO_WIDTH * len(figures)) for name in present
    ).rstrip()
    if groups:
        yield " " * len(head) + groups
    for _ in present:
        head += "  " + "".join(_plain(name).rjust(_RATIO_WIDTH) for name in figures)
    yield head
    for subject, runs in samples.items():
        if not runs:
            yield f"{subject.ljust(_NAME_WIDTH)}     missing"
            continue
        line = subject.ljust(_NAME_WIDTH)
        line += "".join(_figure(runs, name).rjust(_FIGURE_WIDTH) for name in figures)
        for counterpart in present:
            line += "  "
            for name in figures:
                text = "" if subject == counterpart else _ratio(runs, samples[counterpart], name)
                line += text.rjust(_RATIO_WIDTH)
        yield line.rstrip()


def ratio(runs: Sequence[Figures], others: Sequence[Figures], figure: str) -> float | None:
    """The median of the ratios of each repetition; None where a side lacks the figure."""
    ratios = [
        run[figure] / other[figure]
        for run, other in zip(runs, others, strict=False)
        if figure in run and other.get(figure)
    ]
    return median(ratios) if ratios else None


def middle(runs: Sequence[Figures], figure: str) -> float | None:
    """The median of a figure; None where there is none."""
    values = [run[figure] for run in runs if figure in run]
    return median(values) if values else None


def _figure(runs: Sequence[Figures], name: str) -> str:
    value = middle(runs, name)
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(runs: Sequence[Figures], others: Sequence[Figures], name: str) -> str:
    value = ratio(runs, others, name)
    return "-" if value is None else f"{value:.2f}"


def _plain(figure: str) -> str:
    """A figure's name without its unit, for a column of ratios."""
    return figure.removesuffix(" us").removesuffix(" ms").removesuffix(" s/GiB")
