import subprocess
import sys

import pytest

from tithe.selection import STRATEGIES, EdfsLite, KCenter, get_strategy


def test_strategies_are_built_by_name():
    assert get_strategy("edfs_lite", buckets=3) == EdfsLite()
    assert get_strategy("k_center", robust=0.01) == KCenter(robust=0.01)


def test_a_typo_in_the_name_is_answered_with_the_nearest_and_all():
    with pytest.raises(ValueError, match="no strategy `kcentre`. Did you mean `k_center`") as error:
        get_strategy("kcentre")
    assert all(f"`{name}`" in str(error.value) for name in STRATEGIES)


def test_a_typo_in_a_hyper_parameter_is_answered_with_the_nearest_and_all():
    with pytest.raises(
        ValueError, match="`edfs_lite` has no hyper-parameter `bucket`. Did you mean `buckets`.*`shares`"
    ):
        get_strategy("edfs_lite", bucket=3)
    with pytest.raises(ValueError, match="`all` has no hyper-parameter `beta`. It takes none."):
        get_strategy("all", beta=3)


def test_a_bad_value_is_refused_by_the_strategy():
    with pytest.raises(ValueError, match="`beta` must be at least 1"):
        get_strategy("entropy_diversity", beta=0)


def test_importing_the_room_brings_in_no_framework():
    script = "import sys, tithe.selection; print(sorted({'torch', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
