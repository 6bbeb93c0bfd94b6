"""The training step that the benchmark of one accelerator times, in JAX and in PyTorch."""

RATE, DECAY, CLIP, EMA = 3e-4, 1e-4, 1.0, 0.999  # of AdamW, of the gradient's norm, of the average
HORIZON, DIMS, CONDITION = 16, 14, 256  # H, D and the width of the condition
