"""The project's text-to-text model: a T5 whose rows count as much as their weights say."""

from typing import Any

from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration


class WeightedT5(T5ForConditionalGeneration):
    accepts_loss_kwargs = False  # its loss is a mean over its own batch, whatever else `Trainer` counts

    @classmethod
    def make(cls, pretrained: str | None, vocabulary: int, end: int) -> "WeightedT5":
        """A pretrained T5, or a small one with random weights."""
        if pretrained:
            return cls.from_pretrained(pretrained)
        sizes = {"d_model": 96, "d_kv": 24, "d_ff": 192, "num_layers": 1, "num_heads": 4, "vocab_size": vocabulary}
        return cls(T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=end))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        weight: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        outputs = super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **kwargs)
        if labels is not None and weight is not None:
            losses = nn.functional.cross_entropy(outputs.logits.transpose(1, 2), labels, reduction="none")
            outputs.loss = (losses.sum(1) * weight).sum() / ((labels != -100).sum(1) * weight).sum()
        return outputs
