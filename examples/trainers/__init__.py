from .batches import PadDocstrings, PadPairs, PadWords
from .journal import ExactMatch, Journal, accuracy, f1_of_code


__all__ = ["ExactMatch", "Journal", "PadDocstrings", "PadPairs", "PadWords", "accuracy", "f1_of_code"]
