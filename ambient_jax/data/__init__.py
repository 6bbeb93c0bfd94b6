"""Data: RLDS episodes in and out, without TensorFlow. Import the modules you need."""
