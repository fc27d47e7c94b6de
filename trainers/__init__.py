if __name__ != "tithe.trainers":
    raise ImportError("import `tithe.trainers`, not `trainers`: the bare name would load a second copy of every class")
