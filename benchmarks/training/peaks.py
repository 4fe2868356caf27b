"""Peak speed of GPUs as their makers publish it, for the share of it that a training uses (MFU).

Dense bfloat16 products with float32 accumulation, in TFLOP/s, without sparsity; from NVIDIA's data sheets and white papers of each card.
"""

PEAKS = {
    "B200": 2250.0,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.1,
    "L4": 121.0,
    "A10": 125.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}


def peak_of(name: str) -> float | None:
    """Published operations per second of a card; None for one that is not in the table.

    Args:
        name: As ``torch.cuda.get_device_name`` gives it, e.g. ``NVIDIA H100 80GB HBM3``.
    """
    words = name.replace("-", " ").split()
    found = next((peak for card, peak in PEAKS.items() if set(card.split()) <= set(words)), None)
    return None if found is None else found * 1e12
