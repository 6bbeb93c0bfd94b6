"""The model card of a policy, from what its run recorded: README.md of a policy folder.

It starts with the metadata that the Hugging Face Hub reads:
https://huggingface.co/docs/hub/model-cards.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ambient_jax import mixing, schedules
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.steps import INSTRUCTION, IS_CLEAN

TAGS = ("robotics", "diffusion-policy", "ambient-diffusion", "imitation-learning", "jax", "flax")
UNKNOWN = "unknown"  # licence and numbers that nobody stated
_LOSSES = {"denoising": "denoising loss", "ambient": "ambient loss, of x_min only"}


def text(
    content: Mapping[str, Any],
    parameters: int,
    losses: Mapping[str, Any] | None = None,
    reports: Sequence[tuple[str, str]] = (),
) -> str:
    """Returns the card.

    Args:
      content: that of ``policy.json`` with ``statistics`` (JSON of the chain), see ``folder``.
      parameters: their number.
      losses: row of ``metrics.jsonl``; None if there is none.
      reports: title and markdown of each report on the policy.
    """
    config = content["config"]
    sections = [
        _front_matter(content),
        _summary(content),
        _use(content),
        _interface(content),
        _data(content),
        _training(content, parameters),
    ]
    if losses:
        sections.append(_losses(losses, config["data"]["sources"]))
    sections += [f"## Results: {title}\n\n{table.strip()}" for title, table in reports]
    return "\n\n".join([*sections, _FILES]) + "\n"


def _front_matter(content):
    import yaml

    metadata = {
        "license": content.get("license") or UNKNOWN,
        "library_name": "ambient_jax",
        "pipeline_tag": "robotics",
        "tags": list(TAGS),
    }
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---"


def _summary(content):
    config = content["config"]
    roles = [source.get("role") for source in config["data"]["sources"].values()]
    counts = {role: roles.count(role) for role in ("clean", "corrupt") if role in roles}
    sources = " and ".join(f"{n} {role} data set{'s' * (n > 1)}" for role, n in counts.items())
    licence = content.get("license") or UNKNOWN
    stated = (
        f"Its licence is {licence}." if licence != UNKNOWN else ("Nobody has stated its licence.")
    )
    return (
        f"# {config['name']}\n\n"
        f"A diffusion policy for robot actions, trained by ambient_jax on {sources or 'no data'} "
        f"with the law `{config['law']['name']}`. It draws a chunk of actions for the observations "
        "up to now.\n\n"
        f"{stated} It knows no limits of a robot: check its actions before a robot executes them."
    )


def _use(content):
    chain = _chain(content)
    fields = ", ".join(f'"{name}": {name}' for name in _asked(chain))
    return f"""## Use

`pip install 'ambient_jax[policy]'`, with `[policy,hub]` to pull it from the Hugging Face Hub.

```python
import jax
from ambient_jax import Policy

policy = Policy.from_checkpoint("FOLDER")  # or "hf://user/name", "hf://user/name@revision"
chunk = policy({{{fields}}}, jax.random.key(0))
```

`python -m ambient_jax.serve --checkpoint=FOLDER` serves it. The training's data are not needed.
Without JAX, `safetensors.numpy.load_file("policy.safetensors")` returns the parameters by name."""


def _interface(content):
    config, chain = content["config"], _chain(content)
    history, horizon = config["data"]["history"], config["data"]["horizon"]
    rows = []
    for name, shape in _asked(chain, history).items():
        sizes, values = ", ".join(map(str, ("B", *shape))), "units of the data"
        if name == INSTRUCTION:
            sizes, values = "B", "texts"
        elif len(shape) == 4:
            sizes = f"B, {history}, h, w, 3"
            values = f"uint8 RGB of any size, resized to {shape[1]} x {shape[2]}"
        rows.append((f"`{name}`", f"[{sizes}]", values))
    rows.append(("returned actions", f"[B, {horizon}, {chain.action_dim}]", "units of the data"))
    solver, execute = config["policy"], config["policy"].get("execute")
    return (
        "## Observations and actions\n\n"
        f"{_table(('field', 'shape', 'values'), rows)}\n\n"
        f"B rows; the last {history} observations, oldest first. A chunk is {horizon} actions from "
        f"now on, of which {execute} are meant to be executed before the next one. Solver: "
        f"{solver['solver']}, {solver['steps']} steps."
    )


def _data(content):
    columns = ("name", "role", "split", "episodes", "chunks", "weight", "sigma_min", "sigma_max")
    rows, notes = [], []
    for name, source in content["config"]["data"]["sources"].items():
        facts = (content.get("sources") or {}).get(name, {})
        low, high = source.get("sigma_min"), source.get("sigma_max")
        if source.get("role") == "clean":
            low, high = "0", "1"
        elif bounds := facts.get("bounds"):
            low = high = "file"
            notes.append(_bounds(name, bounds))
        elif source.get("bounds") or content["config"]["data"].get("bounds"):
            low = high = "file"
        counts = (facts.get("episodes", UNKNOWN), facts.get("chunks", UNKNOWN))
        high = (1 if not low else 0) if high is None else high
        cells = (source.get("role"), source.get("split"), *counts, source.get("weight"), low, high)
        rows.append((name, *map(_number, cells)))
    text = (
        "A chunk starts at every step. A sample is admissible at noise levels above its sigma_min, "
        "and below its sigma_max; a level is the standard deviation of the noise, 0 (data) to 1 "
        "(noise). The law says who trains a level."
    )
    marks = [f"`{name}` {mark}" for name, mark in (content.get("data") or {}).items()]
    marked = f"\n\nFingerprints of the data: {', '.join(marks)}." if marks else ""
    return "\n\n".join(["## Data", _table(columns, rows), text, *notes]) + marked


def _bounds(name, bounds):
    middle = bounds.get("sigma_min")
    spread = (
        f"; of the others, sigma_min is {middle[0]:.3g}, {middle[1]:.3g} and {middle[2]:.3g} at "
        "the quantiles 5, 50 and 95 %"
        if middle
        else ""
    )
    return (
        f"Bounds file of `{name}` (method {bounds['method']}): {bounds['steps']} steps, "
        f"{bounds['clean']:.1%} of them clean at all levels, {bounds['unusable']:.1%} at none"
        f"{spread}; {bounds['low']:.1%} also train low levels (sigma_max above 0)."
    )


def _training(content, parameters):
    config = content["config"]
    train, objective = config["train"], config["objective"]
    steps, batch = content["step"], train["batch_size"]
    network = {n: v for n, v in config["model"].items() if n not in ("name", "encoder")}
    versions = ", ".join(f"{n} {v}" for n, v in (content.get("versions") or {}).items())
    revision = content.get("git_revision")
    rows = [
        ("law", _described(config["law"], mixing.LAWS)),
        ("noise schedule", _described(config["schedule"], schedules.SCHEDULES)),
        (
            "loss",
            f"{_LOSSES.get(*[objective['loss']] * 2)}, predicts {objective['prediction']}",
        ),
        ("network", f"{config['model']['name']} ({_options(network)})"),
        ("encoder of observations", _options(config["model"].get("encoder") or {}) or "default"),
        ("parameters", f"{parameters:,}"),
        ("steps", f"{steps:,} of {train['steps']:,}"),
        ("batch size", f"{batch:,} ({steps * batch:,} samples drawn)"),
        (
            "optimizer",
            f"AdamW, learning rate {train['learning_rate']:g}, warm-up {train['warmup']} "
            f"steps, weight decay {train['weight_decay']:g}",
        ),
        ("moving average", f"decay {train['ema']:g}; these are the averaged parameters"),
        ("seed", config["seed"]),
        ("fine-tuned from", train.get("init_from") or "nothing"),
        ("versions", versions or f"ambient_jax {content.get('version', UNKNOWN)}"),
        ("revision of the code", revision or UNKNOWN),
    ]
    return f"## Training\n\n{_table(('what', 'value'), rows)}"


def _losses(row, sources):
    rows = [
        (name, _number(row[f"loss_source/{name}"]), _number(row.get(f"share_source/{name}")))
        for name in sources
        if f"loss_source/{name}" in row
    ]
    rows.append(("all", _number(row.get("loss")), "1"))
    return (
        "## Losses at the end\n\n"
        f"{_table(('source', 'training loss', 'share of the batch'), rows)}\n\n"
        f"Mean over the training batches logged at step {row['step']:,}; sources train different "
        "noise levels, so that their losses do not compare."
    )


_FILES = """## Files

| file | content |
|---|---|
| `policy.safetensors` | parameters by name, float arrays |
| `policy.json` | config, normalisation, fingerprints of the data, versions, SHA-256 of the files |
| `README.md` | this card, written by the run |"""


def _chain(content):
    return Chain.from_json(content["statistics"])


def _asked(chain, history=1):
    """Returns the shapes of the observations that a caller gives, by name."""
    shapes = {name: s.shape for name, s in chain.inputs(history).items()}
    return {n: s for n, s in shapes.items() if n != IS_CLEAN and not n.endswith("_mask")}


def _described(section, classes):
    options = _options({n: v for n, v in section.items() if n != "name"})
    named = f"{section['name']}{f' ({options})' * bool(options)}"
    doc = " ".join((getattr(classes.get(section["name"]), "__doc__", None) or "").split())
    sentence = re.split(r"(?<!eq)(?<!al)\.(?= |$)", doc)[0]
    return f"{named}: {sentence}" if sentence else named


def _options(section):
    return ", ".join(f"{name} {_plain(value)}" for name, value in section.items())


def _plain(value):
    if isinstance(value, Mapping):
        return f"({_options(value)})"
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    return _number(value)


def _number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNKNOWN if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _table(columns, rows):
    clean = lambda cell: " ".join(str(cell).split()).replace("|", "\\|")  # noqa: E731
    lines = [columns, ["---"] * len(columns), *([clean(c) for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
