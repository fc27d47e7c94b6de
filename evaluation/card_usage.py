"""The code of a model card: what loads the model and makes it say something, to be run as it is."""

_PIPELINES = {
    "text-classification": ("", '"This is what I think of it."'),
    "token-classification": (', aggregation_strategy="simple"', '"Ada Lovelace wrote to Charles Babbage in London."'),
    "text-generation": ("", '"This is", max_new_tokens=20'),
}
_AUTO = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "multiple-choice": "AutoModelForMultipleChoice",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
}
_FACTORIZED = "import tithe.models  # knows its factorised word embeddings\n"
_SAYS = {
    "text-classification": "print(model.config.id2label[int(logits.argmax())])",
    "token-classification": "print([model.config.id2label[i] for i in logits[0].argmax(-1).tolist()])",
    "text-generation": "print(tokenizer.decode(logits[0, -1].argmax()))",
}


def usage_code(
    task: str | None,
    model: str,
    *,
    base: str | None = None,
    prompt: bool = False,
    factorized: bool = False,
    tokenizer: bool = True,
    labels: int | None = None,
    on_hub: bool = False,
    own_class: tuple[str, str] | None = None,
) -> str:
    """Python that loads `model` (an id of the hub, or a folder as seen from where the code runs) and uses it.

    Args:
        task: as the hub calls it; of one that is not known here the plain model is loaded.
        base: for adapters, the model that they lie on; empty where nobody knows what it is called.
        prompt: whether these adapters have a soft prompt, which takes Tithe to load.
        factorized: whether word embeddings are factorised.
        tokenizer: whether a tokenizer lies with the model.
        labels: for adapters of a classifier, how many labels it has, which its base may not know.
        on_hub: whether `model` is an id: adapters with a prompt are then downloaded first.
        own_class: module and name of the model's class, where it is not one of Transformers'. What its `forward` takes
            and returns is then not known here: the code loads it, and says what there is.

    >>> print(usage_code("text-classification", "me/tenth"))
    from transformers import pipeline
    <BLANKLINE>
    model = pipeline("text-classification", model="me/tenth")
    print(model("This is what I think of it."))
    """
    first = _FACTORIZED if factorized else ""
    if own_class is not None:
        return first + _of_own_class(*own_class, model, base)
    if not tokenizer:
        return first + _untokenised(task, model)
    if base is not None:
        loaded = _adapted(_AUTO.get(task or "", "AutoModel"), model, base, prompt, labels, on_hub, first)
    elif task in _PIPELINES:
        options, given = _PIPELINES[task]
        return (
            f"{first}from transformers import pipeline\n\n"
            f'model = pipeline("{task}", model="{model}"{options})\nprint(model({given}))'
        )
    else:
        auto = _AUTO.get(task or "", "AutoModel")
        loaded = (
            f"{first}from transformers import {auto}, AutoTokenizer\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{model}")\nmodel = {auto}.from_pretrained("{model}")'
        )
    return f"{loaded}\n{_used(task)}"


def _adapted(auto: str, model: str, base: str, prompt: bool, labels: int | None, on_hub: bool, first: str) -> str:
    options = f", num_labels={labels}" if labels else ""
    unknown = "" if base else "  # put its id or folder here: the base was given without a name"
    load = f'PeftModel.from_pretrained(base, "{model}")'
    wanted, own = f"from peft import PeftModel\n{first}from transformers import {auto}, AutoTokenizer\n", ""
    if prompt:
        folder = f'snapshot_download("{model}")' if on_hub else f'"{model}"'
        load, own = f"load_lora_and_prompt(base, {folder})", "\nfrom tithe.models import load_lora_and_prompt\n"
        hub = "from huggingface_hub import snapshot_download\n" if on_hub else ""
        wanted = f"{hub}from transformers import {auto}, AutoTokenizer\n"
    return (
        f"{wanted}{own}\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{model}")\n'
        f'base = {auto}.from_pretrained("{base}"{options}){unknown}\n'
        f"model = {load}.eval()"
    )


def _used(task: str | None) -> str:
    """How a model is used that no pipeline is for, or whose adapters no pipeline loads."""
    if task in ("text2text-generation", "text-generation"):
        return (
            'inputs = tokenizer("This is", return_tensors="pt", return_token_type_ids=False)\n'
            "texts = model.generate(**inputs, max_new_tokens=20)\n"
            "print(tokenizer.decode(texts[0], skip_special_tokens=True))"
        )
    if task == "multiple-choice":
        return (
            'question, choices = "Which of these is a colour?", ["red", "seven", "to run"]\n'
            'inputs = tokenizer([question] * len(choices), choices, padding=True, return_tensors="pt")\n'
            "logits = model(**{name: values[None] for name, values in inputs.items()}).logits\n"
            "print(choices[int(logits.argmax())])"
        )
    given = _PIPELINES[task][1] if task in _PIPELINES else '"This is what I think of it."'
    call = f'outputs = model(**tokenizer({given}, return_tensors="pt"))\n'
    if task in _SAYS:
        return call + f"logits = outputs.logits\n{_SAYS[task]}"
    return call + "print(outputs[0].shape)"


def _of_own_class(module: str, name: str, model: str, base: str | None) -> str:
    unknown = "  # the module that has it" if module == "__main__" else ""
    peft = "from peft import PeftModel\n" if base is not None else ""
    loaded = f'{name}.from_pretrained("{model if base is None else base}")'
    if base is not None:
        loaded = f'PeftModel.from_pretrained({loaded}, "{model}")'
    return (
        f"{peft}from {module} import {name}{unknown}\n\nmodel = {loaded}.eval()\n"
        'print(f"{sum(p.numel() for p in model.parameters()):,} parameters; takes {model.main_input_name}")'
    )


def _untokenised(task: str | None, model: str) -> str:
    auto = _AUTO.get(task or "", "AutoModel")
    ids = "[[[5, 6, 7], [5, 8, 9]]]" if task == "multiple-choice" else "[[5, 6, 7]]"
    decoder = ", decoder_input_ids=torch.tensor([[0]])" if task == "text2text-generation" else ""
    return (
        f"import torch\nfrom transformers import {auto}\n\n"
        f'model = {auto}.from_pretrained("{model}")\n'
        f"ids = torch.tensor({ids})  # of the tokenizer it was trained with, which does not lie here\n"
        f"print(model(input_ids=ids{decoder})[0].argmax(-1).tolist())"
    )
