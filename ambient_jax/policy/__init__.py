"""From a trained network to actions: solvers of the reverse process, and the policy around them."""
