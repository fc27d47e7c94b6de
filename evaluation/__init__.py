if __name__ != "tithe.evaluation":
    raise ImportError("import `tithe.evaluation`, not `evaluation`: the bare name would load a second copy of every class")
