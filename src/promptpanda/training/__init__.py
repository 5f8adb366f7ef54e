"""One loop, batching, heads, distillation."""
