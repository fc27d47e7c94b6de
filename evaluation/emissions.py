"""The energy that a run took and the carbon dioxide that stands for it, as CodeCarbon estimates both."""

import importlib.util
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .files import PathLike, write_atomic


EMISSIONS_NAME = "emissions.json"
_EXTRA = 'CodeCarbon is missing: pip install "tithe[carbon]"'


@dataclass(frozen=True)
class Emissions:
    """What a machine took while it worked.

    Attributes:
        grams: CO₂ equivalents, g.
        kwh: electric energy, kWh, of the whole machine.
        seconds: for how long it was tracked.
        country: whose electricity it was, by name.
        hardware: GPUs and processor, as CodeCarbon names them.
        source: with what it was found.
    """

    grams: float
    kwh: float
    seconds: float
    country: str
    hardware: str
    source: str

    def __add__(self, other: "Emissions") -> "Emissions":
        """Both together; where and on what is said by the later one, `other`."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("grams", "kwh", "seconds")}
        return Emissions(**(asdict(other) | sums))

    def metadata(self, training_type: str = "fine-tuning") -> dict[str, Any]:
        """`co2_eq_emissions` of a model card, whose `emissions` are in grams."""
        return {
            "emissions": float(f"{self.grams:.4g}"),
            "source": self.source,
            "training_type": training_type,
            "geographical_location": self.country,
            "hardware_used": self.hardware,
        }

    @classmethod
    def of_tracker(cls, tracker: Any) -> "Emissions | None":
        """What a CodeCarbon tracker found, once it has been stopped; None before."""
        data = getattr(tracker, "final_emissions_data", None)
        if data is None:
            return None
        gpus = f"{data.gpu_count} x {data.gpu_model}" if data.gpu_count and data.gpu_model else ""
        return cls(
            grams=1000 * data.emissions,
            kwh=data.energy_consumed,
            seconds=data.duration,
            country=_country(tracker, data),
            hardware=", ".join(part for part in (gpus, data.cpu_model) if part) or "unknown",
            source=f"CodeCarbon {data.codecarbon_version}",
        )


def _country(tracker: Any, data: Any) -> str:
    """Whose electricity it was. Where the network does not tell where it is, the online tracker takes Canada."""
    looked_up = type(tracker).__name__ == "EmissionsTracker" and data.on_cloud != "Y"
    if looked_up and data.country_iso_code == "CAN" and data.longitude is None:
        return "unknown, reckoned as Canada's"
    return data.country_name or "unknown"


class EmissionsTracker:
    """Tracks a machine between `start` and `stop`, offline; counts what earlier starts of the same run took.

    CodeCarbon reads the counters of GPUs and processors where it may, and takes constants where it may not, so what
    it says is an estimate. It speaks of the whole machine, and of this one alone.

    Args:
        country: ISO 3166-1 alpha-3 code, such as DEU, of the country whose electricity it is.
        folder: where `emissions.json` is kept; None: nowhere.
        go_on: whether to count in what an earlier start of the run has left in `folder`.

    Raises:
        ImportError: CodeCarbon is not installed; says how to install it.
        ValueError: there is no such country.
    """

    def __init__(self, country: str, folder: PathLike | None = None, go_on: bool = True) -> None:
        check_country(country)
        from codecarbon import OfflineEmissionsTracker

        logging.getLogger("codecarbon").setLevel(logging.ERROR)  # `log_level` counts only once it has begun
        self.folder = None if folder is None else Path(folder)
        self.before = read_emissions(self.folder) if self.folder is not None and go_on else None
        self._found: Emissions | None = None
        self._tracker = OfflineEmissionsTracker(
            country_iso_code=country.upper(), save_to_file=False, log_level="error", allow_multiple_runs=True
        )

    def start(self) -> None:
        """Begin to track, in a thread of its own."""
        self._tracker.start()

    def stop(self) -> Emissions:
        """End it and keep what was found; a second call gives the same.

        Raises `RuntimeError` where it was not started.
        """
        if self._found is None:
            self._tracker.stop()
            found = Emissions.of_tracker(self._tracker)
            if found is None:
                raise RuntimeError("the tracker was never started")
            self._found = found if self.before is None else self.before + found
            if self.folder is not None:
                write_atomic(self.folder / EMISSIONS_NAME, json.dumps(asdict(self._found), indent=2) + "\n")
        return self._found


def check_country(country: str) -> None:
    """Raise an `ImportError` where CodeCarbon is missing, a `ValueError` where `country` is no alpha-3 code."""
    if importlib.util.find_spec("codecarbon") is None:
        raise ImportError(_EXTRA)
    import pycountry  # CodeCarbon's own; with a code that it does not know it goes on, and finds no emissions

    if pycountry.countries.get(alpha_3=country.upper()) is None:
        raise ValueError(f"`{country}` is no country: pass a code of three letters (ISO 3166-1), such as DEU")


def read_emissions(folder: PathLike) -> Emissions | None:
    """What `EmissionsTracker` kept in `folder`, if it did."""
    path = Path(folder) / EMISSIONS_NAME
    if not path.is_file():
        return None
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Emissions(**found)
