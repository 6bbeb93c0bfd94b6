"""Packaging of ambient_jax; bounds say why they are there."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "ambient_jax/__init__.py").read_text())[1]

CORE = [
    "jax>=0.10",  # pmap as jit + shard_map, and jax.random/typed keys as used here
    "flax>=0.12",  # the first line of releases for jax 0.10
    "optax>=0.2.6",
    "orbax-checkpoint>=0.11.30",  # item metadata as read before a restore
    "chex>=0.1.91",
    "ml-collections>=1.1",  # config_flags with typed overrides of tuples
    "numpy>=2.0",
    "absl-py>=2.1",
    "etils[epath]>=1.10",  # paths that may be gs://
    "tqdm>=4.66",  # progress bars
    "tensorboardX>=2.6.2",  # TensorBoard files without TensorFlow
]
DATA = [
    "pyarrow>=17",  # bounds files
    "tensorflow-datasets>=4.9.9",  # readers that never import TensorFlow
    "grain>=0.2.15",  # DatasetIterator as a public class, window shuffle
    "array_record>=0.8",
    "google-crc32c>=1.7",  # checksums of TFRecord files, at 20 GB/s
    "pillow>=11",  # png, and resizing
    "simplejpeg>=1.8",  # half again as fast as Pillow, and strict about damaged data
]
FORMATS = [
    "av>=14",  # videos of LeRobot and AgiBot World
    "h5py>=3.11",  # robomimic and AgiBot World; built for numpy 2
    "zarr>=3",  # replay buffers, also of Zarr v2
]
POLICY = ["pillow>=11"]  # resizes what cameras see, for policies without the data extra
MAZE = [
    "drake>=1.40",  # GcsTrajectoryOptimization with NormalizeSegmentTimes
    "ompl>=2.0",  # first release with wheels
    "gymnasium>=1.1",  # vector environments with autoreset modes
    "matplotlib>=3.9",
    "scipy>=1.13",  # rank correlations
]
BINS = [
    "mujoco>=3.3",
    "gymnasium>=1.1",
    "matplotlib>=3.9",
]
PUSHT = [
    "gym-pusht>=0.1.6",  # brings pymunk below 7, whose callbacks it uses, pygame and OpenCV
    "gymnasium>=1.1",
    "shapely>=2.0",  # vectorised contains_xy
    "matplotlib>=3.9",
]
WANDB = ["wandb>=0.31"]  # finish_timeout, without which an outage holds a run at its end
# TensorFlow is for the tests alone: stock TFDS must read back what data/write.py wrote.
TEST = [
    "pytest>=8",
    "build>=1.2",
    "setuptools>=70.1",
    "pytest-xdist>=3.6",
    "psutil>=6",
    "tensorflow-cpu>=2.18",
    *FORMATS,
    *BINS,
    *PUSHT,
    *WANDB,
]

setup(
    name="ambient_jax",
    version=VERSION,
    description="Ambient Diffusion for robot actions, in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # The experiments run from the clone's root and are not installed.
    packages=find_packages(include=["ambient_jax", "ambient_jax.*"]),
    package_data={"ambient_jax": ["py.typed"], "ambient_jax.open_x": ["*.csv"]},
    install_requires=CORE,
    extras_require={
        "data": DATA,
        "formats": DATA + FORMATS,
        "policy": POLICY,
        "maze": MAZE,
        "bins": DATA + BINS,
        "pusht": DATA + PUSHT,
        "all": DATA + FORMATS + MAZE + BINS + PUSHT,
        "test": DATA + MAZE + TEST,
        "dev": DATA + MAZE + TEST + ["ruff>=0.14", "mypy>=1.18"],
        "bench": ["torch>=2.6", "tensorflow-cpu>=2.18"],
        "wandb": WANDB,
        "cuda": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "gcs": ["etils[epath-gcs]>=1.10"],  # data at gs://
    },
)
