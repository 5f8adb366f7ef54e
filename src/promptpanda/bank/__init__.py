"""Trained prompts on disk: one folder a prompt, in PEFT's layout wherever PEFT can express it, and folders of them."""
