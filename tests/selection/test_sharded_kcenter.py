"""k-centre whose rows lie in several processes, here threads: the picks of one process, and few exchanges."""

import threading

import numpy as np
import pytest

from tithe.selection import coverage_radius, k_center_greedy, k_center_sharded
from tithe.selection.rows import alone


class Threads:
    """An exchange among so many threads, which counts the exchanges and what was told in them."""

    def __init__(self, number):
        self.number, self.count, self.floats, self.most = number, 0, 0, 0
        self._barrier, self._told = threading.Barrier(number), [None] * number

    def share(self, place):
        def exchange(told):
            self._told[place] = told
            if self._barrier.wait() == 0:
                self.count += 1
                self.floats += sum(part.size for one in self._told for part in leaves(one))
                values = [part.size for one in self._told for part in leaves(one) if part.ndim == 1]
                self.most = max(self.most, sum(values))
            found = list(self._told)
            self._barrier.wait()
            return found

        return exchange

    def run(self, work):
        """What `work` returns for each place; the first error of any, if there is one."""
        found, errors = [None] * self.number, []

        def run(place):
            try:
                found[place] = work(place, self.share(place))
            except Exception as error:
                errors.append(error)
                self._barrier.abort()

        threads = [threading.Thread(target=run, args=(place,)) for place in range(self.number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if real := [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]:
            raise real[0]
        return found


def leaves(value):
    if isinstance(value, tuple | list):
        return [leaf for part in value for leaf in leaves(part)]
    return [value] if isinstance(value, np.ndarray) else []


def shards(rows, number, kind, rng):
    """The ids of each process's rows: of several lengths, one after another or in turn."""
    if kind == "in turn":
        return [np.arange(len(rows))[place::number] for place in range(number)]
    if kind == "mixed":
        order = rng.permutation(len(rows))
        return [np.sort(part) for part in np.array_split(order, number)]
    cuts = np.sort(rng.choice(np.arange(1, len(rows)), number - 1, replace=False)) if number > 1 else []
    return np.split(np.arange(len(rows)), cuts)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((12, 16)) * 3
    return (centres[rng.integers(12, size=600)] + rng.standard_normal((600, 16))).astype(np.float32)


@pytest.mark.parametrize("kind", ["one after another", "in turn", "mixed"])
@pytest.mark.parametrize("number", [1, 2, 3, 7])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("block", [1, 16, 64, 512])
def test_the_picks_are_those_of_one_process(rows, kind, number, normalize, block):
    ids, rng = shards(rows, number, kind, np.random.default_rng(number)), np.random.default_rng(5)
    earlier = rng.standard_normal((5, 16)) if block == 16 else None
    options = {"normalize": normalize, "selected_embeddings": earlier, "block": block}
    whole = k_center_greedy(rows, 80, **options)
    group = Threads(number)
    found = group.run(lambda place, share: k_center_sharded(rows[ids[place]], 80, ids[place], share, **options))
    for place, coverage in enumerate(found):
        assert coverage.ids.tolist() == whole.order.tolist()
        np.testing.assert_allclose(coverage.values, whole.values[whole.order], rtol=1e-5)
        np.testing.assert_allclose(coverage.distances, whole.distances[ids[place]], rtol=1e-4, atol=1e-5)
        assert coverage.radius == pytest.approx(whole.radius, rel=1e-5)


def test_ties_go_to_the_lowest_id_whichever_process_has_it():
    rows = np.zeros((12, 2), np.float32)
    rows[[1, 4, 7]], rows[[2, 5]] = [3, 0], [0, 3]
    ids = shards(rows, 3, "in turn", None)
    whole = k_center_greedy(rows, 12)
    found = Threads(3).run(lambda place, share: k_center_sharded(rows[ids[place]], 12, ids[place], share, block=2))
    assert all(coverage.ids.tolist() == whole.order.tolist() for coverage in found)


def test_what_is_exchanged_does_not_grow_with_the_rows(rows):
    many = np.concatenate([rows + shift for shift in np.random.default_rng(1).standard_normal((20, 1, 16))])
    told = {}
    for name, array in (("few", rows), ("many", many)):
        group, ids = Threads(4), shards(array, 4, "in turn", None)
        group.run(lambda place, share, a=array, i=ids: k_center_sharded(a[i[place]], 60, i[place], share, block=64))
        told[name] = group.floats / group.count
        assert group.count < 60, "an exchange for many picks, not one for each"
    assert told["many"] < 2 * told["few"] + 64 * 16


def test_many_processes_tell_of_few_rows_each(rows):
    """Four times their share of a block; all of their largest would be much to send."""
    told = {}
    for number in (1, 12):
        group, ids = Threads(number), shards(rows, number, "in turn", None)
        group.run(lambda place, share, i=ids: k_center_sharded(rows[i[place]], 40, i[place], share, block=48))
        told[number] = group.most
    assert told[12] <= 12 * 16 * 4 and told[12] < 12 * told[1]


def test_the_first_process_has_the_word(rows, monkeypatch):
    """Where the arithmetic of another one rounds otherwise, both still make the same picks."""
    from tithe.selection import farthest_rows

    ids, whole, among = shards(rows, 2, "in turn", None), k_center_greedy(rows, 40), farthest_rows.Greedy._among

    def elsewhere(self, block, centres):
        picked, values = among(self, block, centres)
        return (picked, values) if self.keys[0] == 0 else (picked[:1], values[:1])

    monkeypatch.setattr(farthest_rows.Greedy, "_among", elsewhere)
    found = Threads(2).run(lambda place, share: k_center_sharded(rows[ids[place]], 40, ids[place], share))
    assert all(coverage.ids.tolist() == whole.order.tolist() for coverage in found)


@pytest.mark.parametrize("slack", [0.05, 0.3])
def test_slack_gives_up_no_more_than_it_says(rows, slack):
    """Of the farthest distance at each pick; in all processes alike."""
    exact, order = k_center_greedy(rows, 60), k_center_greedy(rows, 60, slack=slack, block=32).order
    least = np.linalg.norm(rows - rows[order[0]], axis=1)
    for pick in order[1:]:
        assert least[pick] >= (1 - slack) * least.max() * (1 - 1e-5)
        least = np.minimum(least, np.linalg.norm(rows - rows[pick], axis=1))
    assert len(set(order.tolist())) == 60
    assert coverage_radius(rows, rows[order]) <= exact.radius * 2 / (1 - slack)
    ids = shards(rows, 3, "mixed", np.random.default_rng(2))
    found = Threads(3).run(
        lambda place, share: k_center_sharded(rows[ids[place]], 60, ids[place], share, slack=slack, block=32)
    )
    assert all(coverage.ids.tolist() == order.tolist() for coverage in found)


def test_slack_saves_passes(monkeypatch):
    from tithe.selection import farthest_rows

    rng, passes = np.random.default_rng(0), {}
    centres = rng.standard_normal((100, 32))
    rows = (centres[rng.integers(100, size=4000)] + 0.8 * rng.standard_normal((4000, 32))).astype(np.float32)
    advance = farthest_rows.Greedy.advance
    for slack in (0.0, 0.2):
        counted = []
        with monkeypatch.context() as patch:
            patch.setattr(farthest_rows.Greedy, "advance", lambda self, c=counted: (c.append(1), advance(self)))
            k_center_greedy(rows, 400, slack=slack, block=64)
        passes[slack] = len(counted)
    assert passes[0.2] < 0.9 * passes[0.0]


@pytest.mark.parametrize(
    ("lengths", "k", "message"),
    [
        ((0, 0), 1, "from 1 to the 0 rows"),
        ((3, 2), 6, "from 1 to the 5 rows"),
        ((3, 2), 0, "from 1 to the 5 rows"),
    ],
)
def test_impossible_requests_are_refused(lengths, k, message):
    rows = [np.eye(length, 3, dtype=np.float32) for length in lengths]
    with pytest.raises(ValueError, match=message):
        Threads(2).run(
            lambda place, share: k_center_sharded(rows[place], k, np.arange(lengths[place]) + 10 * place, share)
        )


@pytest.mark.parametrize("normalize", [True, False])
def test_a_process_may_have_no_rows(rows, normalize):
    parts = np.split(np.arange(len(rows)), [0, 300, 300])
    found = Threads(4).run(
        lambda place, share: k_center_sharded(rows[parts[place]], 40, parts[place], share, normalize=normalize)
    )
    whole = k_center_greedy(rows, 40, normalize=normalize)
    assert all(coverage.ids.tolist() == whole.order.tolist() for coverage in found)


def test_ids_must_rise(rows):
    with pytest.raises(ValueError, match="`ids` must rise"):
        k_center_sharded(rows[:3], 2, np.array([0, 2, 1]), alone)
    with pytest.raises(ValueError, match="`slack` must be a share"):
        k_center_greedy(rows, 2, slack=1.0)
    with pytest.raises(ValueError, match="with `quality` it must be 0"):
        k_center_greedy(rows, 2, slack=0.1, quality=np.ones(len(rows)))
