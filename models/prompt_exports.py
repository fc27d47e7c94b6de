"""LoRA and soft prompt handed on to whoever has plain PEFT, or plain Transformers."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PromptTuningConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .lora_prompt import merge, prompt_weights
from .soft_prompt import PROMPT, detach_soft_prompt


LORA_FOLDER, PROMPT_FOLDER = "lora", "prompt"


def export_peft(model: PeftModel, folder: str | Path) -> list[Path]:
    """Write LoRA and prompt as two adapters of plain PEFT, into `folder`/lora and `folder`/prompt; those there are.

    They load one after the other, as PEFT cannot stack them:

        model = PeftModel.from_pretrained(base, "folder/lora").merge_and_unload()
        model = PeftModel.from_pretrained(model, "folder/prompt")

    Raises:
        TypeError: `model` has no adapters.
    """
    config = _config(model)
    tensors = get_peft_model_state_dict(model)
    lora = {key: value.contiguous() for key, value in tensors.items() if f".{PROMPT}." not in key}
    written = []
    if lora:
        written.append(Path(folder) / LORA_FOLDER)
        written[-1].mkdir(parents=True, exist_ok=True)
        alone = copy.deepcopy(config)
        alone.modules_to_save, alone.inference_mode = None, True
        alone.save_pretrained(str(written[-1]))
        save_file(lora, str(written[-1] / SAFETENSORS_WEIGHTS_NAME), metadata={"format": "pt"})
    weights = prompt_weights(model)
    if weights is not None:
        written.append(Path(folder) / PROMPT_FOLDER)
        written[-1].mkdir(parents=True, exist_ok=True)
        base: Any = model.get_base_model().config
        PromptTuningConfig(
            task_type=config.task_type,
            base_model_name_or_path=config.base_model_name_or_path,
            inference_mode=True,
            num_virtual_tokens=weights.shape[0],
            token_dim=weights.shape[1],
            num_transformer_submodules=1,  # by default two for an encoder-decoder, of which one is never read
            num_attention_heads=base.num_attention_heads,
            num_layers=base.num_hidden_layers,
        ).save_pretrained(str(written[-1]))
        rows = {"prompt_embeddings": weights.cpu().contiguous()}
        save_file(rows, str(written[-1] / SAFETENSORS_WEIGHTS_NAME), metadata={"format": "pt"})
    return written


def export_plain(model: PeftModel, folder: str | Path, tokenizer: Any = None) -> list[int]:
    """Write a checkpoint that plain Transformers loads: LoRA merged, the prompt as further rows of the vocabulary.

    An input begins with those rows' ids, which are returned. With a `tokenizer`, it is written beside the model, and
    puts them there itself, so that what it makes of a text is what the model wants. `generate` is told never to choose
    one of them, and to score as if they were not there: greedy, by beams and by sampling it writes what `model` does.
    Beams that sample may differ, for Transformers scores those by logits that are not normalised.

    The model in memory stays as it is: a copy is merged.

    Raises:
        TypeError: `model` has no adapters, or the tokenizer cannot be taught to put tokens before a text.
        ValueError: the base is quantised, so that LoRA cannot be merged without loss.
    """
    _config(model)
    if getattr(model.get_base_model(), "is_quantized", False):
        raise ValueError("LoRA cannot be merged into a quantised base without loss: load the base without `load_in_…`")
    plain = merge(copy.deepcopy(model))
    weights = detach_soft_prompt(plain)
    ids: list[int] = []
    if weights is not None:
        if tokenizer is None:
            ids = _next_ids(plain, len(weights))
        else:
            tokenizer, ids = _taught(tokenizer, len(weights))
        _add_rows(plain, ids, weights)
        if plain.generation_config is not None:
            plain.generation_config.suppress_tokens = [*(plain.generation_config.suppress_tokens or ()), *ids]
            # Beams are scored by probabilities of the whole vocabulary: what the prompt's rows have of them is given
            # back, or the export would prefer other beams than the model.
            plain.generation_config.renormalize_logits = True
    plain.save_pretrained(str(folder))
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))
    return ids


def _config(model: Any) -> Any:
    if not isinstance(model, PeftModel):
        raise TypeError(f"exports are of a model with adapters, got {type(model).__name__}")
    return model.peft_config[model.active_adapter]


def _next_ids(model: PreTrainedModel, count: int) -> list[int]:
    table: Any = model.get_input_embeddings()
    first = len(table.weight)
    return list(range(first, first + count))


def _taught(tokenizer: Any, count: int) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """A copy of `tokenizer` that puts `count` new tokens before every text, and their ids."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise TypeError(
            f"{type(tokenizer).__name__} cannot be taught to put tokens before a text: pass no tokenizer, and prefix "
            "the ids that are returned"
        )
    tokenizer = copy.deepcopy(tokenizer)
    names = [f"<prompt_{number}>" for number in range(count)]
    tokenizer.add_tokens(names, special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(names)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["post_processor"] = _with_prefix(state["post_processor"], dict(zip(names, ids, strict=True)))
    # Of the plain class: others build their post-processor anew when they are loaded.
    taught = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **tokenizer.special_tokens_map,
    )
    return taught, ids


def _with_prefix(processor: dict[str, Any] | None, ids: dict[str, int]) -> dict[str, Any]:
    """The state of a post-processor that does what `processor` does, and puts the tokens `ids` before it all."""
    kind = None if processor is None else processor["type"]
    if kind == "Sequence":
        assert processor is not None
        steps = processor["processors"]
        places = [place for place, step in enumerate(steps) if step["type"] != "ByteLevel"]
        if places:
            changed = [_with_prefix(step, ids) if place == places[-1] else step for place, step in enumerate(steps)]
        return {"type": kind, "processors": changed if places else [*steps, _with_prefix(None, ids)]}
    if kind == "ByteLevel":  # it mends offsets, and adds nothing
        return {"type": "Sequence", "processors": [processor, _with_prefix(None, ids)]}
    template = json.loads(json.dumps(processor if kind == "TemplateProcessing" else _template(processor)))
    before = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ids]
    template["single"], template["pair"] = before + template["single"], before + template["pair"]
    template["special_tokens"] |= {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ids.items()}
    return template


def _template(processor: dict[str, Any] | None) -> dict[str, Any]:
    """As a template: no processor at all, or BERT's or RoBERTa's, which are templates of their own kind."""
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    if processor is None:
        return {"type": "TemplateProcessing", "single": [a], "pair": [a, b], "special_tokens": {}}
    (first, first_id), (last, last_id) = processor["cls"], processor["sep"]
    start, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in (first, last))
    between = [end, end] if processor["type"] == "RobertaProcessing" else [end]
    special = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ((first, first_id), (last, last_id))}
    pair = [start, a, *between, b, end]
    return {"type": "TemplateProcessing", "single": [start, a, end], "pair": pair, "special_tokens": special}


def _add_rows(model: PreTrainedModel, ids: list[int], weights: Tensor) -> None:
    """Make `weights` what the embeddings give for `ids`."""
    if max(ids) >= _next_ids(model, 1)[0]:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    table: Any = model.get_input_embeddings()
    scale = getattr(table, "embed_scale", 1.0)  # of BART's, which multiply what they look up
    head: Any = model.get_output_embeddings()
    with torch.no_grad():
        if head is not None and head.weight is not table.weight:
            head.weight[ids] = 0
        table.weight[ids] = (weights / scale).to(table.weight)
