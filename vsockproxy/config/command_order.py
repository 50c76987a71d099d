"""The order in which commands that wait for each other are started. Pure."""

from collections.abc import Mapping, Sequence

__all__ = ("find_cycle", "order_commands")


def order_commands(waits_for: Mapping[str, Sequence[str]]) -> list[str]:
    """Put each command behind those that it waits for; otherwise their order stays.

    Args:
        waits_for: for each name the names that come before it; there is no cycle, and every name
            is a key.
    """
    ordered: list[str] = []
    remaining = dict(waits_for)
    while remaining:
        name = next(each for each in remaining if remaining.keys().isdisjoint(remaining[each]))
        ordered.append(name)
        del remaining[name]
    return ordered


def find_cycle(waits_for: Mapping[str, Sequence[str]]) -> list[str]:
    """Commands that wait for each other in a ring, from one of them to itself; empty for none.

    Names that are no keys are left aside.
    """
    remaining = dict(waits_for)
    while True:
        free = [name for name in remaining if remaining.keys().isdisjoint(remaining[name])]
        if not free:
            break
        for name in free:
            del remaining[name]
    if not remaining:
        return []
    path = [next(iter(remaining))]  # whoever remains waits for another that remains
    while path[-1] not in path[:-1]:
        path.append(next(each for each in remaining[path[-1]] if each in remaining))
    return path[path.index(path[-1]) :]
