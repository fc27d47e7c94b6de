"""A search that several processes share and that any of them may leave at any moment: its trials are on disk.

Optuna keeps the trials in SQLite. What it does not do: it counts the trials of each process apart, so that several
run too many, and a trial whose process was killed runs for ever, or until its heart has not beaten for a while. Here
each process holds a lock as long as it lives, and a trial of one that is dead is tried again at once, by its number.
"""

import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ..models import import_extra
from .search_space import Space, distributions, named_values


STUDY_NAME = "study.db"
SAMPLERS = ("random", "tpe")
_WORKERS, _LOCK = "workers", "study.lock"
_REDUCTION = 3  # of the trials that reach a rung, one in three goes on
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class SearchTerms:
    """What one study is: trials that differ in any of it cannot be compared.

    Attributes:
        space: what is searched.
        sampler: one of `SAMPLERS`.
        objective: the metric, without `eval_`.
        greater_is_better: of it.
        seed: of the sampler; trial k is drawn by (seed, k).
        prune_every: steps between two evaluations, where trials are pruned; None: never.
        about: what else may not change, such as the fingerprint of the data.
    """

    space: Space
    sampler: str = "random"
    objective: str = "loss"
    greater_is_better: bool = False
    seed: int = 0
    prune_every: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def direction(self) -> str:
        return "maximize" if self.greater_is_better else "minimize"


class SharedStudy:
    """The study in `folder`, made where it is missing; one of its workers, as long as `working()` is open.

    Raises:
        ImportError: Optuna is missing.
        ValueError: the study there is another one, and in what it differs.
    """

    def __init__(self, folder: Path, terms: SearchTerms) -> None:
        optuna = import_optuna()
        if terms.sampler not in SAMPLERS:
            raise ValueError(f"`sampler` must be one of {', '.join(SAMPLERS)}; got {terms.sampler!r}")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.terms = folder, terms
        self._taken: int | None = None
        self._lock = FileLock(str(folder / _LOCK))
        self.worker = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        with self._lock:
            self.storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder / STUDY_NAME}", engine_kwargs={"connect_args": {"timeout": 120}}
            )
            self._study = optuna.create_study(
                storage=self.storage, study_name="tune", direction=terms.direction, load_if_exists=True
            )
            self._check_terms()

    def _check_terms(self) -> None:
        terms = self.terms
        wanted = {
            **{name: str(distribution) for name, distribution in distributions(terms.space).items()},
            "sampler": terms.sampler,
            "objective": terms.objective,
            "seed": terms.seed,
            "prune_every": terms.prune_every,
            **terms.about,
        }
        found = self._study.user_attrs.get("terms")
        if found is None:
            self._study.set_user_attr("terms", wanted)
            return
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise ValueError(
                    f"{self.folder / STUDY_NAME} holds another search: its `{name}` is {found.get(name)}, this one's "
                    f"is {wanted.get(name)}; choose another folder, or repeat the search as it was"
                )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Be a worker: its trials are its own until the block is left, or the process dies."""
        workers = self.folder / _WORKERS
        workers.mkdir(exist_ok=True)
        path = workers / f"{self.worker}.lock"
        with FileLock(str(path)):
            yield
        path.unlink(missing_ok=True)

    @contextmanager
    def next_trial(self, trials: int) -> Iterator[dict[str, Any] | None]:
        """Wait for a trial to be free among `trials`; the options of `create_study` for it, or None if all have ended.

        The lock on the study is held until `take` is called with the trial that Optuna then asks for, or the block is
        left.
        """
        try:
            yield self._wait(trials)
        finally:
            self._release()

    def take(self, trial: Any) -> None:
        """Make `trial`, which has just been asked for, this worker's."""
        if trial.user_attrs.get("worker") != self.worker:
            trial.set_user_attr("worker", self.worker)
        self._taken = trial.number
        self._release()

    def took_pruned(self) -> bool:
        """Whether the trial that was taken last has been pruned."""
        if self._taken is None:
            return False
        return self._study.get_trials(deepcopy=False)[self._taken].state.name == "PRUNED"

    def rows(self) -> list[dict[str, Any]]:
        """All trials that have ended, by number: `trial`, `state`, `value`, `seconds`, `steps`, the values tried."""
        found = []
        for draw, trial in sorted(self._drawn(), key=lambda pair: pair[0]):
            if trial.state.name in ("COMPLETE", "PRUNED"):
                state = "diverged" if "diverged" in trial.user_attrs else trial.state.name.lower()
                row = {
                    "trial": draw,
                    "state": state,
                    self.terms.objective: trial.value if trial.state.name == "COMPLETE" else None,
                    **named_values(trial.params, self.terms.space),
                    "seconds": (trial.datetime_complete - trial.datetime_start).total_seconds(),
                    "steps": max(trial.intermediate_values, default=None),
                }
                found.append(row)
        return found

    def curves(self) -> dict[int, dict[int, float]]:
        """Trial → step → the objective there."""
        return {draw: dict(trial.intermediate_values) for draw, trial in self._drawn() if trial.intermediate_values}

    def importance(self) -> dict[str, float]:
        """What share of the objective's variance each hyper-parameter accounts for, by fANOVA (Hutter et al., 2014).

        Empty where fewer than two trials are complete, or all came out the same.
        """
        optuna = import_optuna()
        done = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        if len({trial.value for trial in done}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.terms.seed)
        try:
            return dict(optuna.importance.get_param_importances(self._study, evaluator=evaluator))
        except (RuntimeError, ValueError):  # trees that never split: too few trials
            return {}

    def _release(self) -> None:
        if self._lock.is_locked:
            self._lock.release()

    def _wait(self, trials: int) -> dict[str, Any] | None:
        while True:
            self._lock.acquire()
            self._revive()
            drawn = self._drawn()
            waiting = [draw for draw, trial in drawn if trial.state.name == "WAITING"]
            originals = len({draw for draw, _ in drawn})
            if waiting or originals < trials:
                return self._options(waiting[0] if waiting else originals)
            if not any(trial.state.name == "RUNNING" for _, trial in drawn):
                return None
            self._release()
            time.sleep(_POLL_SECONDS)

    def _options(self, draw: int) -> dict[str, Any]:
        optuna = import_optuna()
        seed = int(np.random.SeedSequence([self.terms.seed, draw]).generate_state(1)[0])
        make = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}[self.terms.sampler]
        every = self.terms.prune_every
        pruner: Any = optuna.pruners.NopPruner()
        if every is not None:
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=every, reduction_factor=_REDUCTION)
        shared = {"storage": self.storage, "study_name": "tune", "load_if_exists": True}
        return {**shared, "sampler": make(seed=seed), "pruner": pruner}

    def _drawn(self) -> list[tuple[int, Any]]:
        """Trials with their numbers, a trial that is tried again with that of its first try; in the order of tries."""
        found: list[tuple[int, Any]] = []
        number_of: dict[int, int] = {}
        for trial in self._study.get_trials(deepcopy=False):
            first = trial.user_attrs.get("retry_of", trial.number)
            draw = number_of.setdefault(first, len(number_of))
            found.append((draw, trial))
        return found

    def _revive(self) -> None:
        """Try again what was running in processes that are dead, or failed."""
        again = {trial.user_attrs.get("again", -1) for _, trial in self._drawn()}
        for _, trial in self._drawn():
            lost = trial.state.name == "RUNNING" and not self._is_alive(trial.user_attrs.get("worker"))
            if lost:
                self._study.tell(trial.number, state=import_optuna().trial.TrialState.FAIL)
            if (lost or trial.state.name == "FAIL") and trial.number not in again:
                first = trial.user_attrs.get("retry_of", trial.number)
                self._study.enqueue_trial(trial.params, user_attrs={"retry_of": first, "again": trial.number})

    def _is_alive(self, worker: str | None) -> bool:
        if worker == self.worker:
            return False  # it is between two trials now
        path = self.folder / _WORKERS / f"{worker}.lock"
        if worker is None or not path.exists():
            return False
        try:
            with FileLock(str(path), timeout=0):
                pass
        except Timeout:
            return True
        path.unlink(missing_ok=True)
        return False


def import_optuna() -> Any:
    """Optuna, quiet; an `ImportError` that says what to install where it is missing."""
    optuna = import_extra("optuna", "tuning", "a hyper-parameter search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
