"""Recorded teleoperation of a humanoid: what poorly recorded episodes are still worth."""
