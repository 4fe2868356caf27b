"""LoRA, and which parameters are trainable."""
