"""Energy and emissions of a run, where they are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState

from tithe.evaluation import EmissionsTracker, check_country


@contextmanager
def emissions_tracked(country: str | None, folder: Path) -> Iterator[EmissionsTracker | None]:
    """A tracker of the machine of the main process, in it alone, and only where `country` says that it is wanted.

    What it found is kept in `folder` however the run ends, short of a kill, and counted in when it goes on.

    Raises:
        ValueError: there is no such country, or CodeCarbon is not installed.
    """
    if country is None:
        yield None
        return
    try:
        check_country(country)
    except (ImportError, ValueError) as error:
        raise ValueError(f"`track_emissions`: {error}") from error
    if not PartialState().is_main_process:
        yield None
        return
    tracker = EmissionsTracker(country, folder)
    tracker.start()
    try:
        yield tracker
    finally:
        tracker.stop()
