"""Keys that a run is given in every way there is, searched for in all that it prints and leaves."""

import base64
import gzip
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import zipfile

import pytest
import yaml
from tables import write_rows
from transformers.integrations import get_available_reporting_integrations

from tithe.recipes import data_selection
from tithe.recipes.arguments import parse_arguments, resolved_arguments, secret_flags
from tithe.recipes.data_arguments import DataArguments


ALWAYS = {"TITHE_TRACEBACK": "1", "OMP_NUM_THREADS": "1", "CLEARML_OFFLINE_MODE": "1", "WANDB_MODE": "offline"}


class Canaries(dict):
    """Secrets by name, each of its own, in no source file, and made on first use."""

    def __missing__(self, name):
        self[name] = f"canary{os.urandom(10).hex()}"
        return self[name]

    def found_in(self, content):
        content = content.encode() if isinstance(content, str) else content
        names = [name for name, value in self.items() if value.encode() in content]
        return names + [
            f"{name} in base64" for name, value in self.items() if base64.b64encode(value.encode()) in content
        ]


@pytest.fixture
def canaries():
    return Canaries()


@pytest.fixture
def server(tmp_path, canaries):
    """A server of files that wants a user, a password, a key in a header and one in the query; gives its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    wanted = base64.b64encode(f"reader:{canaries['password']}".encode()).decode()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def send_head(self):
            allowed = self.headers["Authorization"] == f"Basic {wanted}" and canaries["query"] in self.path
            if not allowed or self.headers["X-Api-Key"] not in (canaries["header"], canaries["config"]):
                return self.send_error(401)
            return super().send_head()

        def log_message(self, *args):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def urls(server, canaries):
    return {
        split: f"http://reader:{canaries['password']}@{server}/{split}.jsonl?v=1&token={canaries['query']}"
        for split in ("train", "validation", "test")
    }


def contents(path):
    """The bytes of a file, and of what is packed in it, however deep."""
    queue = [path.read_bytes()]
    while queue:
        content = queue.pop()
        yield content
        if content[:2] == b"\x1f\x8b":
            queue.append(gzip.decompress(content))
        elif zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                queue += [archive.read(name) for name in archive.namelist()]


def test_no_key_is_printed_or_saved(tmp_path, server, canaries, capsys, monkeypatch):
    for seed, (split, count) in enumerate({"train": 120, "validation": 24, "test": 24}.items()):
        write_rows(tmp_path / "served" / f"{split}.jsonl", count, seed)
    work = tmp_path / "work"
    work.mkdir()
    inputs = {work / ".env", work / "mine.yaml"}
    (work / ".env").write_text(f"HF_TOKEN={canaries['hf']}\nWANDB_API_KEY={canaries['wandb'] * 2}\n")
    # The flags go over the file: both `storage_options` are parsed, and one is used.
    settings = {
        "storage_options": {"headers": {"X-Api-Key": canaries["config"]}},
        "hub_token": canaries["config token"],
    }
    settings |= {"budget": 0.25, "rounds": 2, "num_train_epochs": 2, "learning_rate": 1e-3, "use_cpu": True}
    settings |= {"strategy": "entropy_diversity", "output_dir": "run", "model_name_or_path": "small", "proxy": "none"}
    (work / "mine.yaml").write_text(yaml.safe_dump(settings))
    installed = get_available_reporting_integrations()
    trackers = [name for name in ("tensorboard", "clearml", "wandb") if name in installed]
    options = {
        "headers": {"X-Api-Key": canaries["header"]},
        "client_kwargs": {"cookies": {"session": canaries["cookie"]}},
    }
    flags = ["--config", "mine.yaml", "--hub_token", canaries["flag"], "--storage_options", json.dumps(options)]
    flags += [part for split, url in urls(server, canaries).items() for part in (f"--{split}_file", url)]
    flags += ["--report_to", *trackers, "--log_embeddings", "true"]
    variables = {"CLEARML_API_SECRET_KEY": canaries["clearml"], "AWS_SECRET_ACCESS_KEY": canaries["aws"]}
    variables |= {"CLEARML_CACHE_DIR": str(work / "clearml"), "TITHE_CACHE": str(work / "cache"), **ALWAYS}
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "WANDB_API_KEY")}

    command = [sys.executable, "-m", "tithe.recipes.data_selection", *flags]
    done = subprocess.run(command, cwd=work, env=environment | variables, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "from .env: HF_TOKEN, WANDB_API_KEY" in done.stdout and "failed and" not in done.stderr
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(work)
    data_selection.main(flags)  # what lies there is found to be of the same run
    missing = urls(server, canaries)["train"].replace("train", "missing")
    for more in (["--budget", "0.5"], ["--train_file", missing, "--output_dir", "other"]):
        with pytest.raises(SystemExit):
            data_selection.main([*flags, *more])
    said = capsys.readouterr()
    assert "is complete" in said.out and "holds another run" in said.err and "missing.jsonl" in said.err
    assert "Traceback" in said.err
    printed = "\n".join((done.stdout, done.stderr, said.out, said.err))
    assert canaries.found_in(printed) == []
    left = [path for path in work.rglob("*") if path.is_file() and path not in inputs]
    names = {path.name for path in left}
    assert {"run.yaml", "results.json", "report.html", "README.md", "trainer_state.json", "training_args.bin"} <= names
    assert any("tfevents" in name for name in names) and {"metadata.tsv", "ledger.safetensors", "finished"} & names
    if "clearml" in trackers:
        assert list((work / "clearml" / "offline").glob("*.zip"))
    if "wandb" in trackers:
        assert list(work.glob("wandb/*/*.wandb"))
    leaks = {str(path): found for path in left for content in contents(path) if (found := canaries.found_in(content))}
    assert leaks == {}
    saved = yaml.safe_load((work / "run" / "run.yaml").read_text())
    assert saved["train_file"] == f"http://{server}/train.jsonl?v=1&token=***" and "hub_token" not in saved
    assert saved["storage_options"] == {"headers": {}, "client_kwargs": {}}
    assert json.loads((work / "run" / "results.json").read_text())["data"]["name"] == "train.jsonl"


@pytest.mark.parametrize(
    "flags",
    [
        ["--storage_options", '{{"key": "{0}"'],
        ["--storage_options", '["{0}"]'],
        ["--storage_options", "secret={0}"],
        ["--hub_token", "{0}", "--bugdet", "0.1"],
        ["--hub_token={0}", "--budget", "{0}"],
        ["--hub_token", "{0}", "{0}"],
        ["--train_file", "https://u:{0}@localhost:9/a.xyz"],
        ["--train_file", "s3://{0}:{0}/{0}@bucket/a.xyz"],
        ["--train_file", "nosuchprotocol://{0}@bucket/a.csv"],
        ["--dataset", "https://u:{0}@localhost:9/folder", "--train_file", "a.csv"],
    ],
)
def test_errors_quote_no_key(flags, canaries, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TITHE_TRACEBACK", "1")
    flags = [flag.format(canaries["secret"]) for flag in flags]
    with pytest.raises(SystemExit) as ended:
        data_selection.main([*flags, "--output_dir", str(tmp_path / "run"), "--model_name_or_path", "small"])
    said = capsys.readouterr()
    assert ended.value.code == 2 and "error: " in said.err
    assert canaries.found_in(said.out + said.err) == []


@pytest.mark.parametrize(
    "text",
    [
        'storage_options: {{key: "{0}"\nhub_token: {0}\n',
        "hub_token: {0}\nstorage_options: secret={0}\n",
        "hub_token: [{0}]\n",
        "storage_options: {{secret: {0}}}\nbugdet: {0}\n",
        "hub_token: {0}\nbudget: {0}\n",
        "hub_token: {0}\nhub_token: {0}\n",
    ],
)
def test_errors_in_a_config_quote_no_key(text, canaries, capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text.format(canaries["secret"]))
    with pytest.raises(SystemExit):
        data_selection.main(["--config", str(path), "--output_dir", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert str(path) in said.err and canaries.found_in(said.out + said.err) == []


def test_what_is_not_written_reaches_another_process_as_flags():
    given = [
        "--train_file",
        "https://me:passw0rd@host/a.csv",
        "--storage_options",
        '{"anon": false, "key": "abcdefgh"}',
    ]
    (parsed,) = parse_arguments((DataArguments,), given)
    assert resolved_arguments(parsed)["train_file"] == "https://host/a.csv"
    (again,) = parse_arguments((DataArguments,), secret_flags(parsed))
    assert (again.train_file, again.storage_options) == (parsed.train_file, parsed.storage_options)
    (plain,) = parse_arguments((DataArguments,), ["--train_file", "a.csv", "--storage_options", '{"anon": true}'])
    assert secret_flags(plain) == []
