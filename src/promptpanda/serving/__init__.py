"""One frozen model in one process, answering for all prompts of a bank over HTTP."""
