"""Logits from the cache are those of a pass over the whole row, whatever rows join and leave."""

import answerers
import pytest
import torch

from tithe.models.kv_rows import CachedPasses


PREFIX = list(range(20, 32))


@pytest.fixture(scope="module", params=answerers.NAMES)
def model(request):
    return answerers.make_model(request.param, answerers.make_tokenizer())


def whole(model, rows):
    return torch.stack([model(torch.tensor([row])).logits[0, -1] for row in rows])


def make_rows(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 290, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("prefix", [[], PREFIX])
def test_logits_are_those_of_the_whole_row(model, prefix, attention):
    model.set_attn_implementation(attention)
    passes = CachedPasses(model, prefix, filler=7)
    inside = len(prefix) - passes.prefix  # tokens of the prefix that a model with a window does not share

    def start(lengths, seed):
        rows = [prefix + row for row in make_rows(lengths, seed)]
        live, logits = passes.start([row[len(prefix) - inside :] for row in rows])
        torch.testing.assert_close(logits, whole(model, rows), atol=1e-4, rtol=1e-4)
        return rows, live

    def step(rows, live, token):
        logits = passes.step(live, [token + place for place in range(len(rows))], [len(row) for row in rows])
        rows = [row + [token + place] for place, row in enumerate(rows)]
        torch.testing.assert_close(logits, whole(model, rows), atol=1e-4, rtol=1e-4)
        return rows

    rows, live = start([9, 4, 1, 4], seed=0)
    rows = step(rows, live, 40)
    live.keep([1, 2, 3])  # the longest leaves, and with it columns
    assert live.mask.shape[1] == len(rows[1]) + live.spare
    rows = step(rows[1:], live, 50)
    more, joining = start([11, 2], seed=1)  # wider than those that wait for them
    live.join(joining)
    rows = step(rows + more, live, 60)
    live.keep([3, 0])
    narrow, joining = start([1], seed=2)
    live.join(joining)
    rows = step([rows[3], rows[0], *narrow], live, 70)
    live.keep([2])
    assert live.mask.shape[1] == len(rows[2]) + live.spare
    rows = step(rows[2:], live, 80)


@torch.no_grad()
def test_a_window_shares_no_prefix(model):
    passes = CachedPasses(model, PREFIX, filler=0)
    assert passes.prefix == (0 if model.config.model_type == "mistral" else len(PREFIX))
