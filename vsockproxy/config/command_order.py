"""Whether commands wait for each other in a ring. Pure."""

from collections.abc import Mapping, Sequence

__all__ = ("find_cycle",)


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
