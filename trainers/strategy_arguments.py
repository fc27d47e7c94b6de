"""From what a user gives as a strategy to the object that chooses."""

import json
from dataclasses import replace
from typing import Any

from ..selection import WRAPPERS, Strategy, get_strategy


AUTO = "auto"


def resolve_strategy(given: str | Strategy | None, name: str, hyperparameters: dict[str, Any]) -> Strategy:
    """The strategy `given`, a name or an object, or where it is None that called `name`.

    Raises:
        TypeError: `given` is no strategy.
        ValueError: there are hyper-parameters for a strategy that `given` replaces.
    """
    if given is None or given == name:
        return get_strategy(name, **hyperparameters)
    if hyperparameters:
        raise ValueError(
            f"`strategy_kwargs` {hyperparameters} belong to `args.strategy` {name}, which the `strategy` argument "
            "overrides: give it as an object, `get_strategy(name, **hyperparameters)`"
        )
    if isinstance(given, str):
        return get_strategy(given)
    if not isinstance(given, Strategy):
        raise TypeError(
            f"`strategy` must be a name or have `needs` and `select(pool, k, rng)`; got {type(given).__name__}"
        )
    return given


def resolve_initial(name: str, strategy: Strategy) -> Strategy:
    """The strategy of the first round: the one called `name`, or where that is "auto" the one `strategy` asks for.

    A strategy asks by an attribute `initial`, a name; one that does not gets `random`. A wrapper stays around it,
    unless it reads predictions itself.
    """
    return _initial_of(strategy) if name == AUTO else get_strategy(name)


def _initial_of(strategy: Strategy) -> Strategy:
    if not isinstance(strategy, tuple(WRAPPERS.values())):
        return get_strategy(getattr(strategy, "initial", "random"))
    wrapper: Any = strategy
    inner = _initial_of(wrapper.strategy)
    wrapped: Strategy = replace(wrapper, strategy=inner)
    return inner if "probabilities" in wrapped.needs else wrapped


def json_object(name: str, value: dict[str, Any] | str | None) -> dict[str, Any]:
    """The argument `name` as a dict, from a dict or from JSON; a `ValueError` where it is neither."""
    try:
        found = json.loads(value) if isinstance(value, str) else value or {}
    except json.JSONDecodeError as error:
        raise ValueError(f"`{name}` is not JSON ({error}): {value}") from error
    if not isinstance(found, dict):
        raise ValueError(f"`{name}` must be a JSON object, got {value}")
    return found
