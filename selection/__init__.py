if __name__ != "tithe.selection":
    raise ImportError("import `tithe.selection`, not `selection`: the bare name would load a second copy of every class")
