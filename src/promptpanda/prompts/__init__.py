"""The prompt value class, how it attaches to a backbone, the bank, foreign formats."""
