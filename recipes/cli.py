"""`tithe NAME …` runs the recipe NAME with the flags that follow."""

import importlib
import sys


RECIPES = {
    "data_selection": "train on a budget of the data, chosen in rounds",
    "compare_strategies": "strategies x seeds x budgets on one data set, with tables and figures",
    "distill_lm": "a small language model taught by a larger one, on any texts",
    "distill_ner": "a tagger fine-tuned, its embeddings factorised, a student of at most 20M parameters distilled",
    "evaluate_model": "metrics and figures of any saved classifier",
    "expert_loop": "a student that asks for labels, taught by an ensemble, beside the same one with all labels",
    "prompt_tune": "LoRA and a soft prompt of a seq2seq model, together or alone; BLEU, chrF, ROUGE, METEOR",
    "slm_qa": "small language models answering questions, with no, oracle and retrieved context",
    "tune": "the batch size that fits, then hyper-parameters, then data_selection with the best of them",
    "label": "fill in the queries of an expert loop at the terminal",
}


def main(argv: list[str] | None = None) -> None:
    """Run the recipe that the first argument names; without one, or with `--help`, list them."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: tithe RECIPE [--config FILE.yaml] [--flag value …]\n")
        for name, what in RECIPES.items():
            print(f"  {name:20} {what}")
        print("\ntithe RECIPE --help lists the flags of one.")
        return
    name = argv[0].replace("-", "_")
    if name not in RECIPES:
        print(f"error: no recipe {argv[0]!r}; there are {', '.join(RECIPES)}", file=sys.stderr)
        raise SystemExit(2)
    importlib.import_module(f"tithe.recipes.{name}").main(argv[1:])


if __name__ == "__main__":
    main()
