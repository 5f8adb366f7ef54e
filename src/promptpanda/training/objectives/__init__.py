"""What a task kind wants of a model, one module a form."""
