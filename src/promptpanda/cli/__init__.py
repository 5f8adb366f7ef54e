"""The `panda` command: thin functions that parse, call the library, and print."""
