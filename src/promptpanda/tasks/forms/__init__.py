"""How rows become examples, one module a form: whole texts, choices, words, spans."""
