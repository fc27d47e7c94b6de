"""`tithe`: a command for each recipe, and for what one does before and after a run."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tithe.evaluation import mask, write_atomic
from tithe.recipes.cache_folder import cache_dir
from tithe.recipes.completion import complete_recipe, items, script_of
from tithe.recipes.config_shelf import copy_config, print_configs, read_shelved, shelved_names
from tithe.recipes.env_file import read_env_file
from tithe.recipes.errors import fail, nearest, user_errors
from tithe.recipes.strategy_tables import print_strategies, print_strategy, strategy_names


RECIPES = {
    "data_selection": "train on a budget of the data, chosen in rounds",
    "compare_strategies": "strategies x seeds x budgets on one data set",
    "distill_ner": "a tagger of at most 20M parameters, and its teacher",
    "distill_lm": "a small language model, taught by a larger one",
    "expert_loop": "a student that asks for labels and has teachers",
    "prompt_tune": "LoRA and a soft prompt of a seq2seq model",
    "slm_qa": "answers with no, oracle or retrieved context",
    "tune": "the batch that fits, and hyper-parameters",
    "evaluate_model": "metrics and figures of any saved classifier",
}
_FILE, _FOLDER = click.Path(path_type=Path), click.Path(path_type=Path, file_okay=False)
_ERROR_FILE = "last_error.txt"


class _Commands(click.Group):
    """Recipes apart from the rest; a name mistyped is told the nearest."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, wanted in (("Recipes", True), ("Before and after", False)):
            found = {name: command for name, command in self.commands.items() if (name in RECIPES) is wanted}
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in found.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        name = args[0].replace("-", "_")
        if name not in self.commands and not ctx.resilient_parsing:
            raise click.UsageError(f"no command {args[0]!r}{nearest(name, self.commands, '`tithe --help`')}")
        return super().resolve_command(ctx, [name, *args[1:]])


class _Recipe(click.Command):
    """A module with a `main` that reads its own flags; nothing of it is imported before it runs."""

    def __init__(self, name: str, summary: str) -> None:
        super().__init__(name, short_help=summary, add_help_option=False)
        self.module = f"tithe.recipes.{name}"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> Any:
        read_env_file()
        pairs = zip(ctx.args, [*ctx.args, "--"][1:], strict=True)
        flags = [argument for argument, following in pairs if not _is_ours(argument, following)]
        if len(flags) < len(ctx.args):
            os.environ["TITHE_TRACEBACK"] = "1"
        sys.argv = [f"tithe {self.name}", *flags]  # what usage lines name
        importlib.import_module(self.module).main(flags)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return complete_recipe(str(self.name), self.module, ctx.args, incomplete)


def _is_ours(argument: str, following: str) -> bool:
    """Whether this is our `--debug` and not that of Transformers, which takes a value."""
    return argument == "--debug" and following.startswith("--")


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback behind an error.")
@click.version_option(package_name="tithe", message="%(package)s %(version)s")
@click.pass_context
def tithe(ctx: click.Context, debug: bool) -> None:
    """Train on a tenth: good small models out of little data and few labels.

    `tithe RECIPE` runs a recipe in one process, `accelerate launch recipes/RECIPE.py` in as many as its config says;
    both take the same flags, which `tithe RECIPE --help` lists.
    """
    if debug:
        os.environ["TITHE_TRACEBACK"] = "1"
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _name, _summary in RECIPES.items():
    tithe.add_command(_Recipe(_name, _summary))


@tithe.command(short_help="the strategies: what each reads, takes and comes from")
@click.argument("name", required=False, shell_complete=lambda _, __, begun: items(strategy_names(), begun))
def strategies(name: str | None) -> None:
    """List the strategies, or tell all about NAME: what it picks, by which formula, and when to use it."""
    with user_errors():
        if name is None:
            print_strategies()
        else:
            print_strategy(name)


@tithe.group(short_help="the configs of recipes and of accelerate launch", invoke_without_command=True)
@click.pass_context
def configs(ctx: click.Context) -> None:
    """List, show and copy the configs that come with Tithe, of recipes and of `accelerate launch`."""
    if ctx.invoked_subcommand is None:
        print_configs()


def _shelved(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    return items(shelved_names(), begun)


@configs.command("list")
def list_configs() -> None:
    """Their names, and what each is for."""
    print_configs()


@configs.command("show")
@click.argument("name", shell_complete=_shelved)
def show_config(name: str) -> None:
    """Print the config NAME."""
    with user_errors():
        click.echo(read_shelved(name), nl=False)


@configs.command("copy")
@click.argument("name", shell_complete=_shelved)
@click.argument("target", type=_FILE, default=Path())
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def copy_shelved(name: str, target: Path, force: bool) -> None:
    """Copy the config NAME to TARGET, a file or a folder (the current one by default), to be edited."""
    with user_errors():
        click.echo(f"copied to {copy_config(name, target, force=force)}")


tithe.add_command(_Recipe("label", "fill in the queries of an expert loop at the terminal"))


@tithe.command(short_help="build a run's report again, also of one that has not ended")
@click.argument("run", type=_FOLDER)
def report(run: Path) -> None:
    """Build RUN/report.html again from what lies in RUN, which may still be running, or have been killed."""
    from tithe.recipes.rebuilt_report import rebuild_report

    with user_errors():
        click.echo(f"report: {rebuild_report(run)}")


@tithe.command(short_help="finished runs side by side, with paired differences")
@click.argument("runs", type=_FOLDER, nargs=-1, required=True)
@click.option("--output_dir", type=_FOLDER, default=Path("runs/compared"), show_default=True, help="For the report.")
@click.option("--split", default="test", show_default=True, help="Which rows to compare on.")
@click.option("--metric", "metrics", multiple=True, help="Which metrics to show; by default those that all runs have.")
def compare(runs: tuple[Path, ...], output_dir: Path, split: str, metrics: tuple[str, ...]) -> None:
    """Compare finished RUNS: their metrics, in what they differ, and by how much on the same rows."""
    from tithe.recipes.run_comparison import compare_runs

    with user_errors():
        compare_runs(runs, output_dir, split=split, metrics=metrics)


@tithe.command(short_help="what makes bash, zsh or fish complete `tithe`")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete `tithe`: commands, flags, strategies and configs.

    For bash add to ~/.bashrc: eval "$(tithe completion bash)"
    """
    click.echo(script_of(tithe, shell))


def main(argv: list[str] | None = None) -> None:
    """Run `tithe` with the arguments `argv`, by default those of the command line.

    An error is one line on stderr, and exit status 2 where the user can mend it, else 1; `--debug` adds the traceback.
    """
    try:
        tithe.main(args=argv, prog_name="tithe", standalone_mode=False)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted; a run started again by the same command goes on where it was", 130)
    except BrokenPipeError:  # `tithe strategies | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        fail(f"{type(error).__name__}: {error}{_kept(traceback.format_exc())}", 1)


def _kept(trace: str) -> str:
    """Where the traceback of an error that nobody foresaw was put: a long run need not be repeated to see it."""
    try:
        path = cache_dir() / _ERROR_FILE
        write_atomic(path, mask(trace))
    except (OSError, ValueError):
        return "; `tithe --debug …` shows where"
    return f"; the traceback is in {path}, and `tithe --debug …` shows it"


if __name__ == "__main__":
    main()
