"""Which data, at which noise level: the choice without rollouts, judged by rollouts."""
