"""Exports a trained policy: one StableHLO function that runs with jax and NumPy alone.

    python -m ambient_jax.export --checkpoint=runs/mine --out=exported
    python exported/load_policy.py                           # what it takes; one chunk of zeros
    python -m ambient_jax.export --checkpoint=runs/mine --onnx=policy.onnx --solver=dpmpp_2m

See ``ambient_jax.policy.export``, and docs/export.md.
"""

from absl import flags, logging

from ambient_jax.cli import console
from ambient_jax.policy import export, export_onnx
from ambient_jax.policy.policy import Policy


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        values = flags.FLAGS
        if not values.checkpoint or not (values.out or values.onnx):
            raise ValueError("expected --checkpoint=<workdir of a trained policy> --out=<folder>")
        names = ("solver", "steps", "clip", "eta")
        options = {n: values[n].value for n in names if values[n].present}
        policy = Policy.from_checkpoint(values.checkpoint, source=values.source or None, **options)
        if values.out:
            folder = export.save(policy, values.out, platforms=values.platforms)
            size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
            logging.info("wrote %s (%.1f MB)", folder, size / 1e6)
        if values.onnx:
            file = export_onnx.save(policy, values.onnx)
            logging.info("wrote %s (%.1f MB)", file, file.stat().st_size / 1e6)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", "", "workdir or checkpoint of the policy")
    flags.DEFINE_string("out", "", "folder to write")
    flags.DEFINE_string("onnx", "", "ONNX file to write, of a policy without images and texts")
    flags.DEFINE_string("source", "", "whose statistics normalise, if each source has its own")
    flags.DEFINE_string("solver", "", "in place of the config's, as are the next three")
    flags.DEFINE_integer("steps", 0, "steps of the solver")
    flags.DEFINE_float("clip", None, "bound on |x0_hat|")
    flags.DEFINE_float("eta", 0.0, "noise of ddim")
    flags.DEFINE_list("platforms", list(export.PLATFORMS), "where the function shall run")
    console.run(_main)
