"""Energy and emissions of a training, tracked by a callback."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..evaluation import Emissions, EmissionsTracker, check_country


class TrackEmissions(TrainerCallback):
    """Tracks what `train()` takes in electricity, offline, for the model card and `emissions.json` in `output_dir`.

    The process that logs tracks its own machine; others are not seen. Where a run is resumed, what earlier starts took
    is counted in, unless they were killed: only a training that ends is written down.

    Args:
        country: ISO 3166-1 alpha-3 code, such as DEU, of the country whose electricity it is.

    Attributes:
        emissions: what was found, once training has ended.

    Raises:
        ImportError: CodeCarbon is not installed (`tithe[carbon]`).
        ValueError: there is no such country.

    Example:
        >>> from tithe.trainers import RoundSelectionTrainer, TrackEmissions
        >>> RoundSelectionTrainer(model, args, callbacks=[TrackEmissions("DEU")])  # doctest: +SKIP
    """

    def __init__(self, country: str) -> None:
        check_country(country)
        self.country = country
        self.emissions: Emissions | None = None
        self._tracker: EmissionsTracker | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            resumed = state.global_step > 0
            self._tracker = EmissionsTracker(self.country, Path(args.output_dir), go_on=resumed)
            self._tracker.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._tracker is not None:
            self.emissions, self._tracker = self._tracker.stop(), None
