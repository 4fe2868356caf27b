"""GGUF files: llama.cpp's converter from its pinned archive, quantization, and a Modelfile for Ollama."""
