"""Training: state, the pure step, its lifting over devices, checkpoints, metrics and the loop."""
