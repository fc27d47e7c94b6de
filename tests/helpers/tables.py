"""Files of rows whose class shows in most of their words, for the recipes of classification."""

import json

import numpy as np


WORDS = {
    "fruit": "apple pear plum cherry fig grape melon lemon",
    "metal": "iron zinc copper silver gold lead nickel cobalt",
    "river": "rhine danube volga loire elbe tagus ebro vistula",
}


def write_rows(path, count, seed):
    rng = np.random.default_rng(seed)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(count):
            label = str(rng.choice(list(WORDS)))
            words = [*rng.choice(WORDS[label].split(), 4), *rng.choice(" ".join(WORDS.values()).split(), 2)]
            file.write(json.dumps({"text": " ".join(rng.permutation(words)), "label": label}) + "\n")
    return path
