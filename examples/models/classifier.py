"""The project's classifier: any encoder, a mean over its tokens, and what kind of thing the text is about."""

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class TextClassifierConfig(PreTrainedConfig):
    model_type = "text_classifier"

    def __init__(self, encoder: dict | None = None, kinds: int = 3, **kwargs) -> None:
        super().__init__(**kwargs)
        self.encoder, self.kinds = encoder or AutoConfig.for_model("bert").to_dict(), kinds


class TextClassifier(PreTrainedModel):
    config_class = TextClassifierConfig
    base_model_prefix = "encoder"  # the attribute with the encoder: Tithe takes embeddings from it
    main_input_name = "ids"  # what a row has in place of `input_ids`: Tithe reads rows of like length together

    def __init__(self, config: TextClassifierConfig) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(AutoConfig.for_model(**config.encoder))
        self.kind = nn.Embedding(config.kinds, self.encoder.config.hidden_size)
        self.head = nn.Linear(self.encoder.config.hidden_size, config.num_labels)
        self.post_init()

    @classmethod
    def make(cls, pretrained: str | None, vocabulary: int, labels: list[str]) -> "TextClassifier":
        """Around a pretrained encoder, or around a small one with random weights."""
        small = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 256}
        small |= {"vocab_size": vocabulary, "max_position_embeddings": 64}
        config = AutoConfig.from_pretrained(pretrained) if pretrained else AutoConfig.for_model("bert", **small)
        model = cls(TextClassifierConfig(config.to_dict(), id2label=dict(enumerate(labels))))
        if pretrained:
            model.encoder = AutoModel.from_pretrained(pretrained)
        return model

    def forward(self, ids: Tensor, mask: Tensor, kind: Tensor, labels: Tensor | None = None):
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        shown = mask.unsqueeze(-1)
        mean = (states * shown).sum(1) / shown.sum(1)
        logits = self.head(mean + self.kind(kind))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
