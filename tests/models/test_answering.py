"""Answers: those of `generate` alone, in any batch; each once, whatever interrupts; rows that are done leave."""

import json
from collections import Counter

import answerers
import pytest
import torch
from launching import launch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import BertConfig, BertForMaskedLM, FalconH1Config, FalconH1ForCausalLM, T5Config
from transformers import T5ForConditionalGeneration as T5

from tithe.models import attach_soft_prompt, computing_in, generate_answers, plain_model
from tithe.models.answer_log import shard_path, shard_paths


INSTRUCTIONS, PROMPTS, alone = answerers.INSTRUCTIONS, answerers.PROMPTS, answerers.alone
STOP = ("v", "t t")
OPTIONS = {"stop": STOP, "max_new_tokens": 8, "dtype": None, "progress": False}


@pytest.fixture(scope="module")
def tokenizer():
    return answerers.make_tokenizer()


@pytest.fixture(scope="module")
def models(tokenizer):
    return {name: answerers.make_model(name, tokenizer) for name in answerers.NAMES}


@pytest.fixture
def model(models):
    return models["llama"]


@pytest.fixture
def reads(model):
    """The (rows, width) of each pass, and how many of the ids in it were attended to."""
    found = []

    def note(module, args, kwargs):
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        found.append((*ids.shape, int(mask[:, -ids.shape[1] :].sum())))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    yield found
    hook.remove()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("batch_size", [1, 3, None])
@pytest.mark.parametrize("before", ["", INSTRUCTIONS])
@pytest.mark.parametrize("name", answerers.NAMES)
def test_are_those_of_generate_alone(models, tokenizer, tmp_path, name, before, batch_size):
    model, path = models[name], tmp_path / "answers.jsonl"
    expected = [alone(model, tokenizer, before + prompt, STOP) for prompt in PROMPTS]
    found = generate_answers(model, tokenizer, PROMPTS, path, prefix=before, batch_size=batch_size, **OPTIONS)
    assert found == [text for text, *_ in expected]
    told = {e["prompt"]: (e["answer"], e["generated_tokens"], e["stopped"]) for e in lines(path)}
    assert [told[before + prompt] for prompt in PROMPTS] == expected
    assert len({count for _, count, _ in expected}) > 2  # else nothing leaves, and nothing joins


def test_every_way_to_stop_occurs(model, tokenizer, tmp_path):
    generate_answers(model, tokenizer, PROMPTS, tmp_path / "answers.jsonl", **OPTIONS)
    assert {entry["stopped"] for entry in lines(tmp_path / "answers.jsonl")} == {"eos", "stop", "length"}


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_rows_that_are_done_leave_the_batch(model, tokenizer, tmp_path, reads, batch_size):
    path = tmp_path / "answers.jsonl"
    generate_answers(model, tokenizer, PROMPTS, path, batch_size=batch_size, **OPTIONS)
    # A row takes part in one pass per token it gets, the first of which reads the prompt, and in no other.
    assert sum(rows for rows, *_ in reads) == sum(entry["generated_tokens"] for entry in lines(path))
    assert max(rows for rows, *_ in reads) <= batch_size


def test_a_row_that_is_done_makes_room(model, tokenizer, tmp_path, reads):
    """Passes are fewer than batches one after the other would need."""
    path = tmp_path / "answers.jsonl"
    generate_answers(model, tokenizer, PROMPTS, path, batch_size=4, **OPTIONS)
    told = sorted(lines(path), key=lambda entry: -entry["prompt_tokens"])
    counts = [entry["generated_tokens"] for entry in told]
    steps = sum(width == 1 for _, width, _ in reads)
    assert steps < sum(max(counts[start : start + 4]) - 1 for start in range(0, len(counts), 4))


@pytest.mark.parametrize("explicit", [False, True])
def test_the_common_start_is_read_once(model, tokenizer, reads, explicit):
    prompts = PROMPTS if explicit else [INSTRUCTIONS + prompt for prompt in PROMPTS]
    generate_answers(model, tokenizer, prompts, prefix=INSTRUCTIONS if explicit else "", batch_size=3, **OPTIONS)
    ids = [tokenizer(INSTRUCTIONS + prompt)["input_ids"][:-1] for prompt in set(PROMPTS)]
    shared = next(place for place in range(99) if len({tuple(row[: place + 1]) for row in ids}) > 1)
    assert reads[0] == (1, shared, shared) and shared > 12
    # What is behind it is read once a row; then come passes of one token a row.
    assert sum(own for _, width, own in reads[1:] if width > 2) == sum(len(row) - shared for row in ids)
    assert all(width <= 2 + max(map(len, ids)) - shared for _, width, _ in reads[1:])


def test_a_prompt_that_the_others_begin_with(model, tokenizer):
    prompts = [INSTRUCTIONS + "one", INSTRUCTIONS + "one two", INSTRUCTIONS + "one two ten"]
    found = generate_answers(model, tokenizer, prompts, **OPTIONS)
    assert found == [alone(model, tokenizer, prompt, STOP)[0] for prompt in prompts]


def test_equal_prompts_are_answered_once(model, tokenizer, tmp_path, reads):
    path = tmp_path / "answers.jsonl"
    found = generate_answers(model, tokenizer, ["one two", "ten", "one two"], path, **OPTIONS)
    assert found[0] == found[2] and len(lines(path)) == 2 and reads[0][0] == 2
    generate_answers(model, tokenizer, ["ten"] * 3, path, temperature=1.0, **OPTIONS)
    assert len(lines(path)) == 5


class Stopped(Exception):
    pass


def failing(model, monkeypatch, fails):
    """Let the passes for which `fails(number, rows)` gives an exception raise it."""
    number, original = [0], type(model).forward

    def forward(self, *args, **kwargs):
        number[0] += 1
        error = fails(number[0], len(kwargs["input_ids"]))
        if error is not None:
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", forward)
    return number


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("at", [1, 3, 6, 11])
def test_an_interrupted_call_goes_on(model, tokenizer, tmp_path, monkeypatch, at, temperature):
    path, whole = tmp_path / "some.jsonl", tmp_path / "whole.jsonl"
    options = {**OPTIONS, "batch_size": 4, "temperature": temperature, "name": "m"}
    expected = generate_answers(model, tokenizer, PROMPTS, whole, **options)
    failing(model, monkeypatch, lambda number, rows: Stopped() if number == at else None)
    with pytest.raises(Stopped):
        generate_answers(model, tokenizer, PROMPTS, path, **options)
    kept = lines(path) if path.exists() else []
    with open(path, "a") as file:
        file.write('{"key": "cut o')  # killed within a line
    monkeypatch.undo()
    assert generate_answers(model, tokenizer, PROMPTS, path, **options) == expected
    assert lines(path)[: len(kept)] == kept  # none generated twice
    assert Counter(path.read_text().splitlines()) == Counter(whole.read_text().splitlines())  # none lost, none twice
    calls = failing(model, monkeypatch, lambda number, rows: Stopped())
    assert generate_answers(model, tokenizer, PROMPTS, path, **options) == expected and calls == [0]


def test_settings_and_models_are_kept_apart(models, tokenizer, tmp_path):
    path = tmp_path / "answers.jsonl"
    first = generate_answers(models["llama"], tokenizer, PROMPTS, path, name="llama", **OPTIONS)
    other = generate_answers(models["qwen3"], tokenizer, PROMPTS, path, name="qwen3", **OPTIONS)
    short = generate_answers(models["llama"], tokenizer, PROMPTS, path, name="llama", **{**OPTIONS, "stop": "o"})
    assert first != other and short != first
    assert len({entry["key"] for entry in lines(path)}) == len(lines(path)) == 3 * len(set(PROMPTS))
    assert generate_answers(models["llama"], tokenizer, PROMPTS, path, name="llama", **OPTIONS) == first
    assert len(lines(path)) == 3 * len(set(PROMPTS))
    generate_answers(models["llama"], tokenizer, PROMPTS, path, name="llama", **{**OPTIONS, "dtype": "bfloat16"})
    assert len(lines(path)) == 4 * len(set(PROMPTS))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_backs_off_where_memory_runs_out(model, tokenizer, tmp_path, monkeypatch, error):
    expected = generate_answers(model, tokenizer, PROMPTS, **OPTIONS, temperature=1.0)
    tried = []
    failing(model, monkeypatch, lambda number, rows: tried.append(rows) or (error if rows > 3 else None))
    path = tmp_path / "answers.jsonl"
    assert generate_answers(model, tokenizer, PROMPTS, path, **OPTIONS, temperature=1.0, batch_size=12) == expected
    assert [rows for rows in tried if rows > 3] == [12, 6] and len(lines(path)) == len(PROMPTS)


def test_backs_off_within_an_answer(model, tokenizer, tmp_path, monkeypatch):
    """Rows that were done stay done; those under way begin anew, with the same random numbers."""
    expected = generate_answers(model, tokenizer, PROMPTS, **OPTIONS, temperature=1.0)
    error = RuntimeError("CUDA out of memory.")
    failing(model, monkeypatch, lambda number, rows: error if number in (4, 7) else None)
    path = tmp_path / "answers.jsonl"
    assert generate_answers(model, tokenizer, PROMPTS, path, **OPTIONS, temperature=1.0) == expected
    assert len({entry["key"] for entry in lines(path)}) == len(lines(path)) == len(PROMPTS)


def test_gives_up_where_one_row_does_not_fit(model, tokenizer, monkeypatch):
    tried = []
    failing(model, monkeypatch, lambda number, rows: tried.append(rows) or RuntimeError("CUDA out of memory."))
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        generate_answers(model, tokenizer, PROMPTS[:4], **OPTIONS)
    assert tried == [4, 2, 1]
    monkeypatch.undo()
    failing(model, monkeypatch, lambda number, rows: RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        generate_answers(model, tokenizer, PROMPTS[:4], **OPTIONS)


def test_what_is_sampled_is_of_the_prompt_and_the_seed_alone(model, tokenizer):
    options = {**OPTIONS, "temperature": 1.5, "top_p": 0.9, "top_k": 20}
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    prompts = sorted(set(PROMPTS))
    found = generate_answers(model, tokenizer, prompts, **options)
    assert torch.equal(torch.random.get_rng_state(), before)
    for batch_size in (1, 4):
        assert generate_answers(model, tokenizer, prompts, batch_size=batch_size, **options) == found
    assert generate_answers(model, tokenizer, prompts[::-1], **options)[::-1] == found
    assert generate_answers(model, tokenizer, prompts, seed=1, **options) != found
    assert len(set(generate_answers(model, tokenizer, ["ten"] * 8, **options))) > 4


def test_goes_on_with_what_other_processes_left(model, tokenizer, tmp_path, monkeypatch):
    path, whole = tmp_path / "a[1].jsonl", tmp_path / "whole.jsonl"
    expected = generate_answers(model, tokenizer, PROMPTS, whole, **OPTIONS)
    text = whole.read_text().splitlines(keepends=True)
    path.write_text("".join(text[:3]))
    shard_path(path, 1).write_text("".join(text[2:6]))  # line 2: killed while the shards were moved
    shard_path(path, 2).write_text("".join(text[6:7]) + text[7][:9])
    rows = []
    failing(model, monkeypatch, lambda number, count: rows.append(count))
    assert generate_answers(model, tokenizer, PROMPTS, path, **OPTIONS) == expected
    assert rows[0] == len(text) - 7
    assert Counter(path.read_text().splitlines()) == Counter(whole.read_text().splitlines())
    assert shard_paths(path) == []


@pytest.mark.slow
def test_processes_share_the_work(tmp_path):
    settings = {"args": {}, "temperature": 1.0}
    launch("answer_worker", tmp_path / "one", 1, settings)
    one = json.loads((tmp_path / "one" / "answers0.json").read_text())
    found = launch("answer_worker", tmp_path / "two", 2, {**settings, "fail": True}, check=False)
    assert found.returncode != 0 and 0 < len(list((tmp_path / "two").glob("log*.jsonl")))
    kept = [line for file in (tmp_path / "two").glob("log*.jsonl") for line in file.read_text().splitlines()]
    for processes, folder in ((2, "whole"), (3, "two")):
        launch("answer_worker", tmp_path / folder, processes, settings)
        for process in range(processes):
            assert json.loads((tmp_path / folder / f"answers{process}.json").read_text()) == one
        assert [file.name for file in (tmp_path / folder).glob("log*.jsonl")] == ["log.jsonl"]
        there = (tmp_path / folder / "log.jsonl").read_text().splitlines()
        assert Counter(there) == Counter((tmp_path / "one" / "log.jsonl").read_text().splitlines())
    rows = [json.loads((tmp_path / "whole" / f"rows{process}.json").read_text()) for process in range(2)]
    assert sum(rows) == len(there) and abs(rows[0] - rows[1]) <= 1
    assert kept and set(kept) <= set(there)


def test_bfloat16_computes_in_it_and_leaves_the_weights(model, tokenizer):
    weight, before = model.lm_head.weight, {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    seen = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    generate_answers(model, tokenizer, PROMPTS[:3], **{**OPTIONS, "dtype": "bfloat16"})
    hook.remove()
    assert set(seen) == {torch.bfloat16} and model.training and model.lm_head.weight is weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()


def test_tied_weights_stay_tied_and_quantised_ones_as_they_are(model):
    tied = torch.nn.Module()
    tied.first, tied.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    tied.second.weight = tied.first.weight
    model.add_module("tied", tied)
    try:
        with pytest.raises(Stopped), computing_in(model, torch.bfloat16):
            assert tied.first.weight is tied.second.weight and tied.first.weight.dtype == torch.bfloat16
            assert model.model.rotary_emb.inv_freq.dtype == torch.float32
            raise Stopped
        assert tied.first.weight is tied.second.weight and tied.first.weight.dtype == torch.float32
        model.is_quantized = True
        with computing_in(model, torch.bfloat16):
            assert tied.first.weight.dtype == torch.float32
    finally:
        del model.tied, model.is_quantized


def test_adapters_answer(models, tokenizer):
    model = answerers.make_model("llama", tokenizer)
    plain = generate_answers(model, tokenizer, PROMPTS, **OPTIONS)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert generate_answers(adapted, tokenizer, PROMPTS, **OPTIONS) == plain
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    found = generate_answers(adapted, tokenizer, PROMPTS, **OPTIONS)
    assert found == [alone(adapted, tokenizer, prompt, STOP)[0] for prompt in PROMPTS] != plain


def test_needs_no_padding_token(model, tokenizer):
    without = answerers.make_tokenizer()
    without.pad_token = None
    assert generate_answers(model, without, PROMPTS, **OPTIONS) == generate_answers(
        model, tokenizer, PROMPTS, **OPTIONS
    )
    assert without.pad_token is None


def test_no_prompts(model, tokenizer, tmp_path):
    assert generate_answers(model, tokenizer, [], tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"stop": ["a", ""]}, "`stop` has an empty string"),
        ({"temperature": -1.0}, "`temperature` must be 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "`top_p` must be above 0"),
        ({"temperature": 1.0, "top_k": -1}, "`top_k` must be 0"),
        ({"top_k": 5}, "set `temperature` above 0"),
        ({"dtype": "int8"}, "`dtype` must be a floating-point type"),
        ({"dtype": "nonsense"}, "`dtype` must be a floating-point type"),
        ({"max_length": 12}, "5 of 13 prompts are longer than 4 tokens.*the longest, prompt 6, has 8"),
    ],
)
def test_bad_settings(model, tokenizer, options, message, reads):
    with pytest.raises(ValueError, match=message):
        generate_answers(model, tokenizer, PROMPTS, **{**OPTIONS, **options})
    assert not reads


def test_bad_input(model, tokenizer, tmp_path):
    with pytest.raises(TypeError, match="got one text"):
        generate_answers(model, tokenizer, "one", **OPTIONS)
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "a"}\n')
    with pytest.raises(ValueError, match="line 1 is no answer"):
        generate_answers(model, tokenizer, ["one"], path, **OPTIONS)


def test_models_that_it_is_not_for(tokenizer):
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    with pytest.raises(ValueError, match=r"T5.* is no causal \(decoder-only\) language model"):
        generate_answers(T5(T5Config(vocab_size=9, **sizes)), tokenizer, ["one"])
    small = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1}
    with pytest.raises(ValueError, match="is no causal"):
        generate_answers(BertForMaskedLM(BertConfig(vocab_size=9, **small)), tokenizer, ["one"])
    model = answerers.make_model("llama", tokenizer)
    tuned = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="soft prompt"):
        generate_answers(tuned, tokenizer, ["one"])
    attach_soft_prompt(plain_model(model), 2)
    with pytest.raises(ValueError, match="soft prompt"):
        generate_answers(model, tokenizer, ["one"])
    mamba = {"num_key_value_heads": 2, "mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8}
    hybrid = FalconH1ForCausalLM(FalconH1Config(vocab_size=len(tokenizer), **small, **mamba))
    with pytest.raises(ValueError, match="keeps states other than each token's keys and values"):
        generate_answers(hybrid, tokenizer, ["one"], dtype=None)
