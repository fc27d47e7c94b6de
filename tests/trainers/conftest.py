from collections.abc import Callable

import pytest

from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer


def arguments(output_dir, **options):
    settings = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "learning_rate": 3e-3, "logging_steps": 1}
    settings |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 16, "save_strategy": "no"}
    settings |= {"budget": 24, "num_train_epochs": 3, "strategy": "edfs_lite"}
    return RoundSelectionConfig(output_dir=str(output_dir), **{**settings, **options})


@pytest.fixture
def make_trainer(tmp_path, make_model, make_pool, collate) -> Callable[..., RoundSelectionTrainer]:
    """A trainer on the tiny pool; `strategy` may be an object, `trainer` are arguments of the trainer itself."""

    def make(output_dir=None, strategy=None, model=None, pool=None, trainer=None, **options):
        if isinstance(strategy, str):
            strategy, options["strategy"] = None, strategy
        return RoundSelectionTrainer(
            make_model() if model is None else model,
            arguments(output_dir or tmp_path / "out", **options),
            data_collator=collate,
            train_dataset=make_pool() if pool is None else pool,
            strategy=strategy,
            **(trainer or {}),
        )

    return make
