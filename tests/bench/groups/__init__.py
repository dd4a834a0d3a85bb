"""Groups of figures. Each function measures one group on a running site and yields its rows."""

from collections.abc import Callable, Iterator, Sequence

from tests.bench.groups import actions, badges, deploy, lists, memory, mirror, pages, scoring, start, streams
from tests.bench.run import Run
from tests.bench.table import Row

# In this order: the site only grows, and what stops a part of it comes after what it would disturb.
GROUPS: dict[str, Callable[[Run], Iterator[Row]]] = {
    "memory-idle": memory.idle,
    "start": start.with_few_rows,
    "deploy": deploy.measure,
    "scoring": scoring.measure,
    "badges": badges.measure,
    "actions": actions.measure,
    "lists": lists.measure,
    "pages": pages.measure,
    "streams": streams.measure,
    "register": lists.register,
    "scoring-many-models": scoring.beside_many_models,
    "pages-many-models": pages.with_many_models,
    "mirror": mirror.measure,
    "scoring-outages": scoring.during_outages,
    "start-many-models": start.with_many_rows,
    "memory-after-load": memory.after_load,
}


def selected(words: Sequence[str]) -> list[str]:
    """Return the names of the groups that contain one of the words, or of all groups without words.

    Raise ValueError if a word selects no group.
    """
    for word in words:
        if not any(word in name for name in GROUPS):
            raise ValueError(f"No group is called {word!r}. There are {', '.join(GROUPS)}.")
    return [name for name in GROUPS if not words or any(word in name for word in words)]
