if __name__ != "tithe.recipes":
    raise ImportError("import `tithe.recipes`, not `recipes`: the bare name would load a second copy of every class")
