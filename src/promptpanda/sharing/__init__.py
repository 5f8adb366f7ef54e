"""Banks that travel: chosen prompts, sent to and fetched from folders, tar files, object stores and the Hub."""
