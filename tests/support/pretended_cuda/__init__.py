"""A CUDA device on a machine without one: tensors that say ``cuda:0`` and hold real numbers of the CPU.

``python -m tests.support.pretended_cuda model=tiny_llama peft=lora ...`` runs llmft's command line on it and prints what a GPU
would have waited for. A test starts such a process with ``process.run``. Nothing here may import torch before ``library.load``.
"""
