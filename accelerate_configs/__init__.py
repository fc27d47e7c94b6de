"""Launch configs for `accelerate launch --config_file`: `tithe configs` lists and copies them."""
