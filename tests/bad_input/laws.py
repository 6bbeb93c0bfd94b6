"""Laws, schedules and targets that do not exist or cannot be."""

from ambient_jax import mixing, schedules

CASES = {
    "law misspelt": (lambda b: mixing.get("ambiant"), "'ambiant'.*did you mean 'ambient'"),
    "schedule misspelt": (lambda b: schedules.get("cosin"), "'cosin'.*did you mean 'cosine'"),
}
