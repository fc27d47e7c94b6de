"""A small selection run, logged to the trackers named on the command line: `tracking_worker.py FOLDER TRACKER …`."""

import sys

from tiny import collate, make_model, make_pool

from tithe.trainers import RoundSelectionConfig, RoundSelectionTrainer


def main(folder: str, *trackers: str) -> None:
    args = RoundSelectionConfig(
        folder,
        report_to=list(trackers),
        use_cpu=True,
        disable_tqdm=True,
        budget=0.5,
        rounds=2,
        strategy="entropy_diversity",
        num_train_epochs=2,
        logging_steps=1,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        learning_rate=1e-2,
        log_embeddings="tensorboard" in trackers,
    )
    trainer = RoundSelectionTrainer(
        make_model(), args, train_dataset=make_pool(40), eval_dataset=make_pool(20, seed=1), data_collator=collate
    )
    trainer.train()
    trainer.evaluate()
    print(trainer.state.best_model_checkpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
