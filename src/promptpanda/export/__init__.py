"""Prompts for other runtimes: ONNX graphs, and the embeddings that vLLM takes."""
