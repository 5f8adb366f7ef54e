"""What is assessed of each kind of task, one module a form."""
