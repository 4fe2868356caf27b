"""Load the pretrained model and its tokenizer."""
