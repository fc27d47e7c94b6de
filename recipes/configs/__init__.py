"""Config files of the recipes: `accelerate launch recipes/NAME.py --config recipes/configs/FILE.yaml`."""
