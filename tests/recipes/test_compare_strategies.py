"""The comparison from flags to report: with a stand-in for the single run where that is not what is tested."""

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tables import write_rows

from tithe.recipes import cli, compare_strategies, comparison_runs
from tithe.recipes.comparison_progress import Progress
from tithe.recipes.comparison_runs import Run, RunPool, leave_launcher, run_environment, slim


ROOT = Path(__file__).parents[2]
# Leaves what a single run leaves, and notes when it began and ended, without training anything.
STAND_IN = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file

flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder, strategy, seed = Path(flags["--output_dir"]), flags["--strategy"], int(flags["--seed"])
folder.mkdir(parents=True, exist_ok=True)
control = Path(__file__).parent
with open(control / "starts", "a") as file:
    file.write(f"{folder.name} {time.time()}\\n")
said = {"pid": os.getpid(), "env": dict(os.environ), "argv": sys.argv}
(control / f"{folder.name}.json").write_text(json.dumps(said))
if (control / "hang").exists():
    time.sleep(60)
if (control / "slow").exists():
    time.sleep(0.5)
if strategy == (control / "broken").read_text():
    print("Traceback\\nValueError: it is broken", flush=True)
    sys.exit(3)
pool = 40
size = pool if strategy == "all" else round(float(flags["--budget"]) * pool)
chosen = np.random.default_rng(seed).permutation(pool)[:size]
terms = {"terms": json.dumps({})}
save_file({"0.indices": chosen, "0.scores": np.zeros(pool, np.float32)}, folder / "ledger.safetensors", metadata=terms)
(folder / "rounds.jsonl").write_text('{"round": 0}\\n')
for name in ("model.safetensors", "tokenizer.json"):
    (folder / name).write_text("heavy")
(folder / "checkpoint-5").mkdir(exist_ok=True)
(folder / "checkpoint-5" / "optimizer.pt").write_text("heavy")
names = ("accuracy", "f1_macro", "f1_weighted", "roc_auc", "pr_auc")
score = {"all": 0.9, "random": 0.7, "k_center": 0.8}[strategy] + 0.01 * seed
results = {
    "metrics": {split: dict.fromkeys(names, score) for split in ("validation", "test")},
    "selection": {"selected": size, "pool": pool},
    "timings": {"training": 5.0, "scoring": 0.5, "selecting": 0.5},
    "data": {"name": "words", "fingerprint": "1"},
}
(folder / "results.json").write_text(json.dumps(results))
with open(control / "ends", "a") as file:
    file.write(f"{folder.name} {time.time()}\\n")
"""


@pytest.fixture
def control(tmp_path, monkeypatch):
    """The folder in which the stand-in for a single run takes orders and leaves word."""
    folder = tmp_path / "control"
    folder.mkdir()
    (folder / "broken").write_text("")
    (folder / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(comparison_runs, "COMMAND", (sys.executable, str(folder / "stand_in.py")))
    monkeypatch.setattr(comparison_runs, "POLL_SECONDS", 0.02)
    return folder


@pytest.fixture
def flags(tmp_path):
    found = ["--strategies", "random", "k_center", "--seeds", "1", "2", "--budgets", "0.25", "--use_cpu", "true"]
    return [*found, "--train_file", str(tmp_path / "train.jsonl"), "--output_dir", str(tmp_path / "out")]


def times(control, name):
    file = control / name
    return (
        [(n, float(t)) for n, t in (line.split() for line in file.read_text().splitlines())] if file.exists() else []
    )


def said(control, run):
    return json.loads((control / f"{run}.json").read_text())


def refused(capsys, *argv):
    """The one line with which the recipe turns `argv` down."""
    with pytest.raises(SystemExit) as ended:
        compare_strategies.main(list(argv))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--strategies", "random", "k_centre"], "Did you mean `k_center`?"),
        (["--strategies", "random", "random"], "`strategies` must name at least one, and each once"),
        (["--seeds", "1", "1"], "`seeds` must name"),
        (["--seeds", "one"], "--seeds"),
        (["--budgets", "0"], "`budget` must be above 0"),
        (["--processes", "0"], "`processes` must be at least 1"),
        (["--strategy", "random"], "`--strategy` is for a single run: pass `--strategies`"),
        (["--seed=3"], "pass `--seeds`"),
        (["--budget", "0.1"], "pass `--budgets`"),
        (["--strategy_kwargs", "{}"], "pass `--strategy_options"),
        (["--push_to_hub", "true"], "publishes no models"),
        (["--strategy_options", '{"k_center": {"robst": 1}}'], "Did you mean `robust`?"),
        (["--strategy_options", '{"k_centre": {}}'], "Did you mean `k_center`?"),
        (["--strategy_options", '{"k_center": 3}'], "must be a mapping"),
        (["--overrides", '{"all": {"epochs": 3}}'], "`epochs` is no argument of training"),
        (["--overrides", '{"all": {"seed": 3}}'], "`seed` is no argument of training"),
        (["--overrides", '{"random": {"num_train_epochs": "few"}}'], "num_train_epochs"),
        (["--buget", "0.1"], "did you mean"),
        (["--rounds", "0"], "`rounds` must be at least 1"),
    ],
)
def test_bad_arguments_are_one_line_before_anything_starts(control, flags, capsys, tmp_path, extra, message):
    assert message in refused(capsys, *flags, *extra)
    assert not times(control, "starts") and not (tmp_path / "out" / "runs").exists()


def test_a_comparison_leaves_what_it_should(control, flags, tmp_path, capsys):
    compare_strategies.main([*flags, "--strategies", "k_center", "all", "random", "--budgets", "0.25", "0.5"])
    out, printed = tmp_path / "out", capsys.readouterr().out
    assert printed.splitlines()[-1] == f"report: {out / 'report.html'}"
    order = ["all-seed1", *(f"{name}-{budget}-seed1" for budget in (0.25, 0.5) for name in ("k_center", "random"))]
    assert [name for name, _ in times(control, "starts")] == order + [name.replace("seed1", "seed2") for name in order]
    record = json.loads((out / "comparison.json").read_text())
    assert record["notes"] == [] and [run["state"] for run in record["runs"]] == ["done"] * 10
    for split in ("test", "validation"):
        rows = {(r["strategy"], r["budget"]): r for r in csv.DictReader(open(out / f"{split}.csv"))}
        assert float(rows["k_center", "0.25"]["accuracy_mean"]) == pytest.approx(0.815)
        assert float(rows["k_center", "0.25"]["accuracy_minus_random"]) == pytest.approx(0.1)
        assert float(rows["k_center", "0.5"]["f1_macro_share_of_full"]) == pytest.approx(0.815 / 0.915)
        assert rows["all", ""]["share_selected"] == "1.0"
    # The stand-in chooses by the seed alone: both strategies chose the same rows.
    assert np.array(record["overlap"][0]["jaccard"])[0, 1] == 1.0 and record["overlap"][0]["budget"] == 0.25
    tables = (out / "tables.md").read_text()
    assert "## Test" in tables and "| k_center | 25 % | 2 | 81.50 ± 0.71 |" in tables and "+10.00" in tables
    figures = {path.name for path in (out / "figures").iterdir()}
    assert figures == {"budget_curves.png", *(f"{n}_{b}.png" for n in ("accuracy", "overlap") for b in (0.25, 0.5))}
    assert (out / "report.html").read_text().count("<img ") == 5
    assert "| k_center | 25 % | 2 | 1.00 | 4.00 | 25.00 % |" in tables


def test_complete_runs_are_slim_and_skipped(control, flags, tmp_path, capsys):
    cli.main(["compare-strategies", *flags])
    run = tmp_path / "out" / "runs" / "random-0.25-seed1"
    left = {path.name for path in run.iterdir()}
    assert left == {"results.json", "ledger.safetensors", "rounds.jsonl", "run.log"}
    report = (tmp_path / "out" / "tables.md").read_text()
    (tmp_path / "out" / "tables.md").unlink()
    compare_strategies.main(flags)
    assert len(times(control, "starts")) == 4 and (tmp_path / "out" / "tables.md").read_text() == report
    compare_strategies.main([*flags, "--seeds", "1", "2", "3"])
    assert [name for name, _ in times(control, "starts")][4:] == ["random-0.25-seed3", "k_center-0.25-seed3"]
    compare_strategies.main([*flags, "--overwrite", "true", "--keep_models", "true"])
    assert len(times(control, "starts")) == 10 and (run / "model.safetensors").exists()
    compare_strategies.main(flags)
    assert len(times(control, "starts")) == 10 and not (run / "model.safetensors").exists()


def test_a_failing_run_is_reported_and_the_others_go_on(control, flags, tmp_path, capsys):
    (control / "broken").write_text("random")
    with pytest.raises(SystemExit) as ended:
        compare_strategies.main(flags)
    said = capsys.readouterr()
    assert ended.value.code == 1 and said.err.count("ValueError: it is broken") == 2
    assert "2 of 4 runs failed: random, 25 %, seed 1; random, 25 %, seed 2" in said.out
    assert "exit status 3; the last lines of" in said.err
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["strategy"] for row in record["test"]] == ["k_center"] and "random, 25 %" in record["notes"][0]
    (control / "broken").write_text("")
    compare_strategies.main(flags)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["notes"] == []
    assert len(times(control, "starts")) == 6


def test_no_more_processes_than_asked_for(control, flags):
    (control / "slow").touch()
    compare_strategies.main([*flags, "--processes", "2"])
    events = [(t, 1) for _, t in times(control, "starts")] + [(t, -1) for _, t in times(control, "ends")]
    assert max(np.cumsum([step for _, step in sorted(events)])) == 2
    compare_strategies.main([*flags, "--processes", "1", "--overwrite", "true"])
    events = sorted(
        [(t, 1) for _, t in times(control, "starts")[4:]] + [(t, -1) for _, t in times(control, "ends")[4:]]
    )
    assert max(np.cumsum([step for _, step in events])) == 1


def test_options_and_overrides_reach_their_strategy(control, flags):
    options = ["--strategy_options", '{"k_center": {"robust": 0.01}}', "--learning_rate", "0.002"]
    overrides = ["--overrides", '{"random": {"num_train_epochs": 5, "load_best_model_at_end": true}}']
    compare_strategies.main([*flags, *options, *overrides])
    by_name = {name: said(control, f"{name}-0.25-seed1")["argv"] for name in ("random", "k_center")}
    assert by_name["k_center"][by_name["k_center"].index("--strategy_kwargs") + 1] == '{"robust": 0.01}'
    place = by_name["random"].index("--num_train_epochs")
    assert by_name["random"][place : place + 4] == ["--num_train_epochs", "5", "--load_best_model_at_end", "true"]
    settings = yaml.safe_load(Path(by_name["random"][by_name["random"].index("--config") + 1]).read_text())
    assert (
        settings["learning_rate"] == 0.002 and not {"strategy", "strategies", "seed", "output_dir"} & settings.keys()
    )


def test_keys_to_remote_data_stay_out_of_files(control, flags, tmp_path):
    compare_strategies.main([*flags, "--storage_options", '{"secret": "hush", "anon": false}'])
    argv = said(control, "random-0.25-seed1")["argv"]
    assert json.loads(argv[argv.index("--storage_options") + 1]) == {"secret": "hush", "anon": False}
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"hush" in path.read_bytes()]


def test_the_config_of_a_single_run_will_do(flags, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("strategy: k_center\nbudget: 0.5\noutput_dir: elsewhere\nrounds: 2\ntrain_file: x.csv\n")
    _, _, args = compare_strategies.parse(["--config", str(config)])
    assert "left out of" in capsys.readouterr().out
    assert (args.rounds, args.output_dir, args.budgets) == (2, "runs/compare_strategies", [0.1])
    config.write_text("strategies: [random]\nseeds: [7]\noutput_dir: elsewhere\n")
    _, _, args = compare_strategies.parse([f"--config={config}"])
    assert (args.strategies, args.seeds, args.output_dir) == (["random"], [7], "elsewhere")
    with pytest.raises(ValueError, match="run.yaml: unknown key `seedz`"):
        config.write_text("seedz: [7]\nstrategy: random\n")
        compare_strategies.parse(["--config", str(config)])


def test_without_arguments_it_is_the_embedded_corpus():
    data_args, model_args, args = compare_strategies.parse([])
    assert data_args.dataset == "api-docs" and model_args.model_name_or_path == "small"
    assert args.strategies[0] == "random" and args.seeds == [42]
    _, _, args = compare_strategies.parse(["--train_file", "x.csv"])
    assert "all" in args.strategies and args.seeds == [42, 1, 2]


def test_a_folder_of_anothers_is_left_alone(control, flags, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("mine")
    assert "is no comparison's, and holds report.html" in refused(capsys, *flags)
    assert (tmp_path / "out" / "report.html").read_text() == "mine"


def test_a_run_with_other_arguments_is_refused(control, flags, tmp_path, capsys):
    compare_strategies.main(flags)
    run = tmp_path / "out" / "runs" / "random-0.25-seed2"
    (run / "run.yaml").write_text("budget: 0.25\nstrategy: random\nnum_train_epochs: 9.0\n")
    before = (tmp_path / "out" / "settings.yaml").read_text()
    assert "random-0.25-seed2 holds a run with other arguments: its `" in refused(capsys, *flags, "--rounds", "2")
    assert (tmp_path / "out" / "settings.yaml").read_text() == before


def test_two_comparisons_do_not_share_a_folder(control, flags, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another comparison runs in" in refused(capsys, *flags)
    compare_strategies.main(flags)


def start(control, flags):
    """The comparison in a process of its own, with the stand-in for its runs."""
    code = (
        "import sys\nfrom tithe.recipes import compare_strategies, comparison_runs\n"
        f"comparison_runs.COMMAND = (sys.executable, {str(control / 'stand_in.py')!r})\n"
        "compare_strategies.main(sys.argv[1:])"
    )
    return subprocess.Popen(
        # A shell's background job ignores interrupts, and so would all it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        args=[sys.executable, "-c", code, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def until(found, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.05)
    return False


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_it_ends_its_runs_and_goes_on_later(control, flags, tmp_path, number, status):
    (control / "hang").touch()
    process = start(control, [*flags, "--processes", "2"])
    assert until(lambda: len(list(control.glob("*seed1.json"))) == 2), process.communicate()
    time.sleep(0.2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == status and b"4 of 4 runs are missing" in out
    assert not any(is_alive(said(control, f"{name}-0.25-seed1")["pid"]) for name in ("random", "k_center"))
    (control / "hang").unlink()
    compare_strategies.main(flags)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["notes"] == []


def test_a_run_that_outlives_a_killed_comparison_keeps_the_folder(control, flags, capsys):
    (control / "hang").touch()
    process = start(control, flags)
    assert until(lambda: (control / "random-0.25-seed1.json").exists())
    process.kill()
    process.communicate()
    time.sleep(0.1)
    pid = said(control, "random-0.25-seed1")["pid"]
    assert is_alive(pid) and "is about to end there" in refused(capsys, *flags)
    os.kill(pid, signal.SIGKILL)
    (control / "hang").unlink()
    assert until(lambda: not is_alive(pid))
    compare_strategies.main(flags)
    assert [name for name, _ in times(control, "starts")].count("random-0.25-seed1") == 2


def test_runs_know_nothing_of_a_launcher(control, flags, monkeypatch):
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "x"}
    launched |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_MIXED_PRECISION": "no"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    compare_strategies.main(flags)
    seen = said(control, "random-0.25-seed1")["env"]
    assert launched.keys() & seen.keys() == {"ACCELERATE_MIXED_PRECISION"}
    for name, value in {**launched, "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    compare_strategies.main([*flags, "--overwrite", "true"])
    assert len(times(control, "starts")) == 4  # only the first process of a launcher compares
    kept = {"FRANK": "1", "RANKING": "1", "HOME": "/", "PATH": "/bin"}
    environment = kept | launched
    leave_launcher(environment)
    assert environment == kept | {"ACCELERATE_MIXED_PRECISION": "no"}


def test_runs_share_the_cores_and_the_devices(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert [run_environment(n)["OMP_NUM_THREADS"] for n in (1, 3, 20)] == ["8", "2", "1"]
    assert run_environment(2, "GPU-3")["CUDA_VISIBLE_DEVICES"] == "GPU-3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert run_environment(3)["OMP_NUM_THREADS"] == "5"


def test_every_process_has_its_own_device(control, tmp_path):
    runs = [Run("random", 0.5, s, tmp_path / f"r{s}", []) for s in range(4)]
    for run in runs:
        run.flags = [
            "--output_dir",
            str(run.folder),
            "--strategy",
            "random",
            "--seed",
            str(run.seed),
            "--budget",
            "0.5",
        ]
    RunPool(runs, 2, lambda run: None, devices=["4", "7"]).run()
    assert {said(control, run.folder.name)["env"]["CUDA_VISIBLE_DEVICES"] for run in runs[:2]} == {"4", "7"}
    assert all(run.state == "done" for run in runs)


def test_slimming_spares_all_but_the_model(tmp_path):
    kept = ["ledger.safetensors", "results.json", "predictions.parquet", "report.html", "run.yaml", "notes.txt"]
    heavy = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "training_args.bin", "tokenizer.json"]
    for name in (*kept, *heavy):
        (tmp_path / name).touch()
    for name in ("checkpoint-7", "initial_model", "figures"):
        (tmp_path / name).mkdir()
    slim(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "figures"}


def test_the_table_shows_every_state(tmp_path):
    from rich.console import Console

    runs = [Run(name, 0.1, seed, tmp_path, []) for seed in (1, 2) for name in ("random", "margin")]
    runs[0].state, runs[0].seconds, runs[0].results = "done", 12.3, {"metrics": {"test": {"accuracy": 0.8123}}}
    runs[1].state, runs[1].seconds = "running", 4.0
    runs[2].state = "failed"
    console = Console(record=True, width=100, force_terminal=True, file=open(os.devnull, "w"))
    progress = Progress(runs, console)
    with progress.shown():
        progress.update(None)
    console.print(progress.table())
    text = console.export_text()
    assert all(
        part in text for part in ("seed 1", "seed 2", "0.8123 12 s", "running 4 s", "failed", "waiting", "10 %")
    )
    assert "1 done, 1 running, 1 failed, 1 waiting" in text


@pytest.mark.slow
def test_the_real_thing_from_start_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("TITHE_CACHE", str(tmp_path / "cache"))
    flags = ["--strategies", "random", "k_center", "--seeds", "1", "2", "--use_cpu", "true", "--processes", "2"]
    for seed, (split, count) in enumerate({"train": 160, "validation": 30, "test": 40}.items()):
        flags += [f"--{split}_file", str(write_rows(tmp_path / f"{split}.jsonl", count, seed))]
    flags += ["--model_name_or_path", "small", "--learning_rate", "1e-3", "--num_train_epochs", "3"]
    out = tmp_path / "out"
    flags += ["--budgets", "0.25", "--output_dir", str(out)]
    command = [sys.executable, "-m", "tithe.recipes.compare_strategies", *flags]
    # Killed in the midst of its first runs, it goes on where these have a checkpoint.
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    assert until(lambda: list(out.glob("runs/*/checkpoint-*/complete.json")), 120)
    process.terminate()
    assert process.wait(60) == 143
    # A budget that the pool does not have fails where the data are known: in the run.
    done = subprocess.run([*command, "--budgets", "0.25", "161"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("`budget` is 161 rows, the pool has 160") == 4
    results = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")}
    assert len(results) == 4 and not list(out.glob("runs/*/model.safetensors"))
    record = json.loads((out / "comparison.json").read_text())
    assert len(record["test"]) == 2 and "4 of 8 runs failed" in record["notes"][0]
    # Slim and moved as they are, the runs are complete, for the comparison as for the recipe itself.
    moved = out.rename(tmp_path / "moved")
    results = {moved / path.relative_to(out): when for path, when in results.items()}
    out = moved
    compare_strategies.main([*flags, "--output_dir", str(out)])
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")} == results
    again = json.loads((out / "comparison.json").read_text())["runs"][0]
    shown = subprocess.run([*comparison_runs.COMMAND, *again["flags"]], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0 and "is complete" in shown.stdout
