"""Tables of word embeddings: where they lie in a model, what is tied to them, and their principal directions."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import deepspeed_config, is_deepspeed_zero3_enabled


def tables(model: PreTrainedModel) -> list[list[str]]:
    """Names of the modules that share each table of word embeddings: embeddings and tied output layers.

    A model has one such table, or two where encoder and decoder do not share theirs. Tying is read from
    `all_tied_weights_keys` and from identity, since a model on the meta device is not tied yet.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    roots = [model, *((model.get_encoder(), model.get_decoder()) if model.config.is_encoder_decoder else ())]
    found: list[list[str]] = []
    for root in roots:
        words = root.get_input_embeddings()
        group = {name for name, module in modules.items() if module is words}
        group |= {n for n, m in modules.items() if m.__dict__.get("_parameters", {}).get("weight") is words.weight}
        before: set[str] = set()
        while before != group:
            before = set(group)
            for pair in model.all_tied_weights_keys.items():
                owners = {name.rpartition(".")[0] for name in pair if name.endswith(".weight")}
                if owners & group:
                    group |= owners
        if not any(group & set(other) for other in found):
            found.append([name for name in modules if name in group])
    return found


def table_of(modules: Mapping[str, nn.Module]) -> nn.Embedding:
    """The embedding among `modules`, which share one table.

    Raises:
        TypeError: a module is neither an `nn.Embedding` nor an `nn.Linear`, or a scaled embedding of unknown kind.
        ValueError: the embedding renormalises its rows.
    """
    for name, module in modules.items():
        if not isinstance(module, (nn.Embedding, nn.Linear)):
            raise TypeError(
                f"`model` has word embeddings in `{name}`, a {type(module).__name__}; only `nn.Embedding` and output "
                "layers of type `nn.Linear` can be factorised: take adapters off them first"
            )
    words = next(module for module in modules.values() if isinstance(module, nn.Embedding))
    if type(words) is not nn.Embedding and not hasattr(words, "embed_scale"):
        raise TypeError(f"`model` has word embeddings of type {type(words).__name__}, whose forward pass is unknown")
    if words.max_norm is not None:
        raise ValueError("`model` has word embeddings with `max_norm`, which a product of two matrices cannot keep")
    return words


def top_directions(table: Tensor, weights: Tensor | None = None, rows: int = 16_384) -> tuple[Tensor, Tensor]:
    """Squared singular values [d], greatest first, and right singular vectors [d, d] (columns) of `table` [V, d].

    With `weights` [V] those of the table whose rows are multiplied by the weights' square roots.

    From the eigendecomposition of the d × d Gram matrix in float64, summed over blocks of `rows` rows: half the cost
    of a full SVD and the same error at any rank.
    """
    gram = torch.zeros(table.shape[1], table.shape[1], dtype=torch.float64, device=table.device)
    for start in range(0, len(table), rows):
        block = table.detach()[start : start + rows].double()
        weighted = block if weights is None else block * weights[start : start + rows, None].to(block)
        gram += weighted.T @ block
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def retie(model: PreTrainedModel, names: Collection[str], old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """Rewrite which parameters of `model` are tied, after modules `names` went from parameters `old` to `new`.

    Both the list that saving and loading read, and the ones from which `tie_weights()` makes it anew.
    """
    model.all_tied_weights_keys = _rewritten(model.all_tied_weights_keys, names, old, new)
    for prefix, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, PreTrainedModel) and module._tied_weights_keys is not None:
            inside = prefix + "." if prefix else ""
            own = [name.removeprefix(inside) for name in names if name.startswith(inside)]
            if "weight" in new:
                module.__dict__.pop("_tied_weights_keys", None)
            else:
                module._tied_weights_keys = _rewritten(module._tied_weights_keys, own, old, new)
            if module is not model:
                module.all_tied_weights_keys = _rewritten(module.all_tied_weights_keys, own, old, new)


def _rewritten(
    pairs: Mapping[str, str], names: Collection[str], old: tuple[str, ...], new: tuple[str, ...]
) -> dict[str, str]:
    result: dict[str, str] = {}
    for target, source in pairs.items():
        (first, _, leaf), (second, _, _) = target.rpartition("."), source.rpartition(".")
        if leaf not in old or not {first, second} & set(names):
            result[target] = source
        elif {first, second} <= set(names):
            result.update({f"{first}.{leaf}": f"{second}.{leaf}" for leaf in new})
    return result


@contextmanager
def gathered(*parameters: Tensor, write: bool = False) -> Iterator[None]:
    """Inside, `parameters` are whole on every process, under ZeRO-3 too; with `write`, process 0's changes stay."""
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0 if write else None):
        yield


@contextmanager
def partitioned_like(parameter: nn.Parameter) -> Iterator[None]:
    """Inside, new parameters are partitioned by ZeRO-3 if `parameter` is."""
    if not is_deepspeed_zero3_enabled() or not hasattr(parameter, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.Init(config_dict_or_path=deepspeed_config()):
        yield
