from .classifier import TextClassifier
from .tagger import WordTagger
from .writer import WeightedT5


__all__ = ["TextClassifier", "WeightedT5", "WordTagger"]
