"""Models: loading them, their trainable parameters, the forward pass, the loss, and the LightningModule."""
