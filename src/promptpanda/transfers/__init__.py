"""Methods, transferability estimators, and the transfer that puts them together."""
