"""Writes a policy folder that loads from anywhere, with its model card, and pushes it.

python -m ambient_jax.publish --checkpoint=runs/train/mine [--out=FOLDER] [--license=apache-2.0]
python -m ambient_jax.publish --checkpoint=runs/train/mine --push=user/name [--private]

The checkpoint is a workdir, its ``best``, or one step's folder. With a policy folder, such as one
whose card you edited, ``--push`` pushes it as it is. The token is that of ``hf auth login`` or
``HF_TOKEN``. A policy loads by ``Policy.from_checkpoint``, from the folder or "hf://user/name".
"""

from absl import flags

from ambient_jax.cli import console
from ambient_jax.data.bucket import is_bucket
from ambient_jax.publish import folder, hub
from ambient_jax.train import publication


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        values = flags.FLAGS
        path = values.checkpoint
        if not path:
            raise ValueError("expected --checkpoint=<workdir of a trained policy>")
        if folder.is_folder(path):
            if values.out or values.license or not values.push:
                raise ValueError(
                    f"{path} is a policy folder, expected --push=user/name and no other flag; to "
                    "have it elsewhere, copy it"
                )
        else:
            if values.push and is_bucket(path) and not values.out:
                raise ValueError(f"{path} is in a bucket, expected --out=<folder> with --push")
            options = dict(license=values.license, overwrite=values.overwrite)
            path = publication.write(path, values.out, **options)
            print(f"{path} is the policy, its card is {path / folder.CARD}")
        if values.push:
            print(hub.push(path, values.push, private=values.private))


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", "", "workdir or checkpoint of the policy, or a policy folder")
    flags.DEFINE_string("out", "", "folder to write; default: <workdir>/policy")
    flags.DEFINE_string("license", "", "licence for the card, such as apache-2.0")
    flags.DEFINE_string("push", "", "user/name on the Hugging Face Hub that also gets the folder")
    flags.DEFINE_bool("private", False, "make a new repository of --push private")
    flags.DEFINE_bool("overwrite", False, "replace another policy, or an edited card, in --out")
    console.run(_main)
