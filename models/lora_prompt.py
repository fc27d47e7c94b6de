"""LoRA and a soft prompt in one model: PEFT has either; here the prompt is a module that PEFT trains and saves too."""

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from peft.utils.constants import DUMMY_TARGET_MODULES, TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from .passes import rng_neutral
from .soft_prompt import PROMPT, NoPrompt, attach_soft_prompt, embedding_width, prompt_of


INITS = ("vocabulary", "text", "random")
_QUERY_AND_VALUE = ("q_proj", "v_proj")  # as PEFT has it for BART, and not for its kin mBART
_COMMON = 5000  # Lester et al. draw from the 5,000 commonest tokens, which vocabularies begin with


def add_lora_and_prompt(
    model: PreTrainedModel,
    *,
    rank: int = 8,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: Sequence[str] | str | None = None,
    virtual_tokens: int = 20,
    prompt_init: str = "vocabulary",
    prompt_text: str | None = None,
    tokenizer: Any = None,
    seed: int = 0,
) -> PeftModel:
    """`model` with LoRA (Hu et al., 2106.09685) and a soft prompt (Lester et al., 2104.08691), and all else frozen.

    What comes out is a plain `PeftModel`: `Trainer` trains, saves and resumes it as any other, and only what was added
    is saved. The base may be quantised to 8 or 4 bits.

    Args:
        model: an encoder-decoder (T5, BART, mBART, …) or a causal language model (Llama, Qwen3, …); changed in place.
        rank: of LoRA; 0 for the prompt alone.
        alpha: its scale is alpha / rank. Default: 2 · rank.
        dropout: before LoRA's matrices.
        target_modules: names of the layers that get it. Default: PEFT's for this kind of model, query and value.
        virtual_tokens: vectors of the prompt; 0 for LoRA alone.
        prompt_init: "vocabulary" (rows of the embeddings, drawn from the 5,000 first that are no special tokens),
            "text" (the rows of `prompt_text`, repeated or cut to length) or "random" (uniform in ±0.5).
        prompt_text: what "text" begins with, such as the instruction.
        tokenizer: needed by "text"; tells special tokens for "vocabulary".
        seed: of what is drawn.

    Raises:
        TypeError: the model is of a kind that cannot have a prompt, or has adapters already.
        ValueError: an argument is out of range, or the positions have no room for the prompt.
    """
    if isinstance(model, PeftModel) or getattr(model, "peft_config", None):
        raise TypeError("`model` has adapters already: pass the model below them, or `merge` them first")
    if rank < 0 or virtual_tokens < 0 or rank + virtual_tokens == 0:
        raise ValueError(f"`rank` {rank} and `virtual_tokens` {virtual_tokens} must not be negative, nor both 0")
    if prompt_init not in INITS:
        raise ValueError(f"`prompt_init` must be one of {', '.join(INITS)}; got {prompt_init!r}")
    targets = _targets(model, target_modules) if rank else DUMMY_TARGET_MODULES
    if prompt_init == "text" and (tokenizer is None or not (prompt_text and prompt_text.strip())):
        raise ValueError("`prompt_init` text needs `prompt_text` and `tokenizer`")
    if virtual_tokens:
        weight = attach_soft_prompt(model, virtual_tokens).weight
        if weight.device.type != "meta":
            rows = _initial(model, virtual_tokens, prompt_init, prompt_text, tokenizer, seed)
            weight.data.copy_(rows)
    guard_4bit(model)
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM,
        r=rank or 1,
        lora_alpha=alpha if alpha is not None else 2 * (rank or 1),
        lora_dropout=dropout,
        target_modules=targets,
        modules_to_save=[PROMPT] if virtual_tokens else None,
    )
    with rng_neutral():
        torch.manual_seed(seed)  # of LoRA's A
        return _without_copy(get_peft_model(model, config))


def _targets(model: PreTrainedModel, wanted: Sequence[str] | str | None) -> list[str] | str:
    if wanted is not None:
        return wanted if isinstance(wanted, str) else list(wanted)
    kind = model.config.model_type
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind, list(_QUERY_AND_VALUE))
    there = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if not set(known) <= there:
        raise ValueError(f"PEFT knows no layers to adapt in a model of type {kind}: name them in `target_modules`")
    return list(known)


def _initial(model: PreTrainedModel, count: int, how: str, text: str | None, tokenizer: Any, seed: int) -> Tensor:
    """(count, width): the first values of the prompt."""
    generator = torch.Generator().manual_seed(seed)
    if how == "random":
        return torch.rand(count, embedding_width(model), generator=generator) - 0.5
    if how == "text":
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = (found * math.ceil(count / len(found)))[:count]
    else:
        special = set(getattr(tokenizer, "all_special_ids", ()) or _special_ids(model))
        allowed = torch.tensor([i for i in range(min(_COMMON, model.config.vocab_size)) if i not in special])
        ids = allowed[torch.randint(len(allowed), (count,), generator=generator)].tolist()
    embed: Any = model.get_input_embeddings()
    with torch.no_grad(), _gathered(embed):
        # By the module and not its weight: BART's scales what it looks up.
        return embed(torch.tensor(ids, device=embed.weight.device)).detach().clone()


def _special_ids(model: PreTrainedModel) -> list[int]:
    config = model.config
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    found = [getattr(config, name, None) for name in names]
    return [i for ids in found if ids is not None for i in (ids if isinstance(ids, list) else [ids])]


def _gathered(module: nn.Module) -> Any:
    """The whole weight of `module` on every process, where ZeRO-3 has spread it."""
    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(module.parameters()))


def guard_4bit(model: nn.Module) -> int:
    """Keep 4-bit layers trainable on a CPU; returns how many there are.

    On processors with AVX512-BF16 bitsandbytes repacks the weights of a 4-bit layer at its first pass in eval mode,
    and its gradients are zero from then on, without a word.
    """
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


# Saved adapters


def load_lora_and_prompt(model: PreTrainedModel, folder: str | Path, *, trainable: bool = False) -> PeftModel:
    """`model` with what `save_pretrained` of `add_lora_and_prompt`'s model has written into `folder`.

    Use this rather than `PeftModel.from_pretrained`, which leaves the prompt out of a base that has none, and says
    nothing.

    Args:
        model: the base, without adapters; changed in place.
        folder: with `adapter_config.json` and `adapter_model.safetensors`.
        trainable: whether to go on training it.

    Raises:
        FileNotFoundError: there is no adapter in `folder`.
        ValueError: it is that of another base: tensors are missing, left over, or of other shapes.
    """
    folder = Path(folder)
    path = folder / SAFETENSORS_WEIGHTS_NAME
    for file in (folder / CONFIG_NAME, path):
        if not file.is_file():
            raise FileNotFoundError(f"no adapter in {folder}: {file.name} is missing")
    with safe_open(str(path), framework="pt") as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    prompts = [shape for key, shape in found.items() if f".{PROMPT}." in key]
    if prompts:
        count, width = prompts[0]
        if width != embedding_width(model):
            raise ValueError(
                f"the adapter in {folder} is of another base: its prompt is {width} wide, the embeddings of this one "
                f"{embedding_width(model)}"
            )
        attach_soft_prompt(model, count)
    guard_4bit(model)
    base = json.loads((folder / CONFIG_NAME).read_text()).get("base_model_name_or_path")
    another = f"the adapter in {folder} is of another base ({base})"
    try:
        loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{another}: {str(error).strip().splitlines()[-1].strip()}") from error
    expected = {key: tuple(value.shape) for key, value in get_peft_model_state_dict(loaded).items()}
    if expected != found:
        differing = sorted({key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)})
        first = differing[0]
        raise ValueError(
            f"{another}: {len(differing)} of {len(found)} tensors do not fit, the first {first}: "
            f"{found.get(first)} in the file, {expected.get(first)} in the model"
        )
    return _without_copy(loaded)


def _without_copy(model: PeftModel) -> PeftModel:
    """PEFT keeps a second prompt, for when adapters are disabled; the base had none, and has none then."""
    prompt = prompt_of(model)
    if prompt is not None:
        prompt.original_module = NoPrompt()
    return model


def merge(model: PeftModel) -> PreTrainedModel:
    """The base model with LoRA added to its weights, and with the trained prompt, if any, in its place.

    Raises:
        TypeError: `model` has no adapters.
    """
    if not isinstance(model, PeftModel):
        raise TypeError(f"`merge` takes a model with adapters, got {type(model).__name__}")
    return model.merge_and_unload()


def prompt_weights(model: nn.Module) -> Tensor | None:
    """(virtual_tokens, width): the prompt as it is trained by now; None where the model has none."""
    prompt = prompt_of(model)
    return None if prompt is None else prompt.weight.detach()
