"""Measures a trained policy on recorded data, or finds the best of a run's checkpoints.

python -m ambient_jax.evaluate --checkpoint=runs/train/mine --split=val
python -m ambient_jax.evaluate --checkpoint=runs/train/mine --split=val --best

The first command writes ``<workdir>/evaluation/<split>/``: the denoising loss of every source at
each noise level, and the error of sampled chunks against recorded ones. The second compares all
checkpoints, writes ``<workdir>/checkpoints_by_loss/`` and records the best, which training then
keeps as ``--checkpoint=<workdir>/best``. Repeat it as training goes on.
"""

from absl import flags

from ambient_jax.cli import console
from ambient_jax.evaluate import checkpoints
from ambient_jax.train import mirror


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        values = flags.FLAGS
        if not values.checkpoint:
            raise ValueError("expected --checkpoint=<workdir of a trained policy>")
        options = dict(split=values.split, root=values.root, samples=values.samples)
        with mirror.local_path(values.checkpoint, every_step=values.best) as path:
            if values.best:
                print(checkpoints.best(path, **options).table)
            else:
                options |= dict(source=values.source, sampled=values.sampled)
                print(checkpoints.evaluate(path, **options).table)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", "", "workdir or checkpoint of the policy")
    flags.DEFINE_string("split", "", "such as val or train[90%:]; default: the training's")
    flags.DEFINE_string("root", "", "folder of the sources; default: the training's data.root")
    flags.DEFINE_string("source", "", "the only source to evaluate, if others lack the split")
    flags.DEFINE_integer("samples", 4096, "chunks of each source for the loss", lower_bound=1)
    flags.DEFINE_integer("sampled", 512, "number of them for the action error", lower_bound=1)
    flags.DEFINE_bool("best", False, "compare the workdir's checkpoints and record the best one")
    console.run(_main)
