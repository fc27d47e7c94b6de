"""Energy and emissions by CodeCarbon itself, offline."""

import importlib.util
import json
import time

import pytest

from tithe.evaluation import Emissions, EmissionsTracker, check_country, read_emissions


needs_codecarbon = pytest.mark.skipif(
    importlib.util.find_spec("codecarbon") is None, reason='needs pip install "tithe[carbon]"'
)


def test_two_starts_add_up_and_the_later_one_says_where():
    first = Emissions(10.0, 0.1, 60.0, "Germany", "CPU", "CodeCarbon 3")
    second = Emissions(5.0, 0.2, 30.0, "France", "GPU", "CodeCarbon 4")
    assert first + second == Emissions(15.0, pytest.approx(0.3), 90.0, "France", "GPU", "CodeCarbon 4")


def test_without_codecarbon_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "tithe\[carbon\]"'):
        check_country("DEU")


@needs_codecarbon
@pytest.mark.parametrize("country", ["XXX", "DE", "Germany"])
def test_a_country_that_there_is_not_is_refused(country):
    with pytest.raises(ValueError, match=f"`{country}` is no country"):
        EmissionsTracker(country)


@needs_codecarbon
def test_tracks_offline_keeps_what_it_found_and_counts_on(tmp_path):
    assert read_emissions(tmp_path) is None
    found = []
    for start in range(2):
        tracker = EmissionsTracker("deu", tmp_path)
        tracker.start()
        time.sleep(1.1)
        found.append(tracker.stop())
        assert tracker.stop() == found[start] == read_emissions(tmp_path)
    first, both = found
    assert first.country == "Germany" and first.source.startswith("CodeCarbon ")
    assert first.kwh > 0 and first.seconds >= 1
    # German electricity: between a fifth of a kilogram and half of one a kWh
    assert 200 < first.grams / first.kwh < 500
    assert both.kwh > first.kwh and both.seconds > first.seconds + 1
    assert json.loads((tmp_path / "emissions.json").read_text())["kwh"] == both.kwh
    assert [path.name for path in tmp_path.iterdir()] == ["emissions.json"]
    alone = EmissionsTracker("DEU", tmp_path, go_on=False)
    alone.start()
    time.sleep(0.2)
    assert alone.stop().seconds < both.seconds


class Tracked:
    """What CodeCarbon's online tracker has to say where no network tells it where it is, but for what is not read."""

    emissions, energy_consumed, duration, gpu_count, gpu_model, cpu_model = 0.001, 0.02, 60.0, 2, "H100", "EPYC"
    country_name, country_iso_code, longitude, on_cloud, codecarbon_version = "Canada", "CAN", None, "N", "3.3.2"


@pytest.mark.parametrize("longitude, said", [(None, "unknown, reckoned as Canada's"), (-79.4, "Canada")])
def test_a_default_is_not_told_as_a_place(longitude, said):
    data = Tracked()
    data.longitude = longitude
    tracker = type("EmissionsTracker", (), {"final_emissions_data": data})()
    assert Emissions.of_tracker(tracker) == Emissions(1.0, 0.02, 60.0, said, "2 x H100, EPYC", "CodeCarbon 3.3.2")


def test_a_tracker_that_was_not_stopped_says_nothing():
    assert Emissions.of_tracker(None) is None
