"""A token that works while its process lives, and is in no file: every checkpoint has all arguments, pickled."""

from typing import Any


class Unpickled(str):
    """A text that pickles as None.

    >>> import pickle
    >>> token = Unpickled("hf_secret")
    >>> token == "hf_secret", pickle.loads(pickle.dumps({"hub_token": token}))
    (True, {'hub_token': None})
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(None), ()

    def __copy__(self) -> "Unpickled":
        return self

    def __deepcopy__(self, memo: Any) -> "Unpickled":
        return self


def keep_token_unpickled(args: Any) -> None:
    """Let the `hub_token` of training arguments be written nowhere."""
    if args.hub_token is not None:
        args.hub_token = Unpickled(args.hub_token)
