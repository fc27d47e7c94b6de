import time

import pytest
import torch

from tithe.evaluation import inference_speed


class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.sizes, self.modes = [], []

    def forward(self, input_ids):
        self.sizes.append(len(input_ids))
        self.modes.append(self.training)
        time.sleep(0.004)
        return input_ids


def collate(rows):
    return {"input_ids": torch.zeros(len(rows), 2), "labels": torch.zeros(1)}


def test_times_single_rows_and_batches():
    model = Slow().train()
    found = inference_speed(model, [{"input_ids": [1]}] * 40, collate, batch_size=10, latency_rows=20)
    assert model.sizes == [1] + [1] * 20 + [10] + [10] * 4
    assert not any(model.modes) and model.training
    assert 4 <= found["latency_ms"] < 40
    assert 40 / 0.2 < found["throughput"] <= 40 / 0.016


def test_refuses_nothing():
    with pytest.raises(ValueError, match="no rows"):
        inference_speed(Slow(), [], collate)
