"""The project's tagger: reads words by their tokens and by their shape, such as `Aa_1`."""

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel


class WordTaggerConfig(PreTrainedConfig):
    model_type = "word_tagger"

    def __init__(self, encoder: dict | None = None, shapes: int = 64, **kwargs) -> None:
        super().__init__(**kwargs)
        self.encoder, self.shapes = encoder or AutoConfig.for_model("bert").to_dict(), shapes


class WordTagger(PreTrainedModel):
    config_class = WordTaggerConfig
    base_model_prefix = "encoder"

    def __init__(self, config: WordTaggerConfig) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(AutoConfig.for_model(**config.encoder))
        width = self.encoder.config.hidden_size
        self.shape = nn.Embedding(config.shapes, width)
        self.head = nn.Linear(width, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, shapes: Tensor, labels: Tensor | None = None):
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = self.head(states + self.shape(shapes))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}

    @classmethod
    def make(cls, pretrained: str | None, vocabulary: int, labels: list[str], width: int, layers: int) -> "WordTagger":
        """Around a pretrained encoder, or around one with random weights."""
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 2 * width}
        sizes |= {"vocab_size": vocabulary, "max_position_embeddings": 128, "num_attention_heads": 4}
        config = AutoConfig.from_pretrained(pretrained) if pretrained else AutoConfig.for_model("bert", **sizes)
        model = cls(WordTaggerConfig(config.to_dict(), id2label=dict(enumerate(labels))))
        if pretrained:
            model.encoder = AutoModel.from_pretrained(pretrained)
        return model
