if __name__ != "tithe.models":
    raise ImportError("import `tithe.models`, not `models`: the bare name would load a second copy of every class")
