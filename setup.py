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
    "etils[epath]>=1.10",  # paths as TFDS and Orbax take them
    "tqdm>=4.66",  # progress bars
    "tensorboardX>=2.6.2",  # TensorBoard files without TensorFlow
    "safetensors>=0.5",  # policy folders
]
DATA = [
    "pyarrow>=17",  # bounds files
    "tensorflow-datasets>=4.9.9",  # readers that never import TensorFlow
    "grain>=0.2.15",  # DatasetIterator as a public class, window shuffle
    "array_record>=0.8",
    "google-crc32c>=1.7",  # checksums of TFRecord files, at 20 GB/s
    "pillow>=11",  # png, and resizing
    "cloudpickle>=3",  # sources and their transforms, for processes that assemble batches
    "simplejpeg>=1.8",  # half again as fast as Pillow, and strict about damaged data
]
FORMATS = [
    "av>=14",  # videos of LeRobot and AgiBot World
    "h5py>=3.11",  # robomimic and AgiBot World; built for numpy 2
    "zarr>=3",  # replay buffers, also of Zarr v2
]
ROLLOUT = [
    "gymnasium>=1.1",  # vector environments with autoreset modes
    "av>=14",  # videos of episodes
    "pillow>=11",
]
POLICY = ["pillow>=11"]  # resizes what cameras see, for policies without the data extra
SERVE = [
    "websockets>=15",  # keepalive of threaded clients, and proxy=None
    "msgpack>=1.0.5",  # as openpi-client
]
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
ARM = [
    "gymnasium-robotics>=1.4",  # holds the Panda's model
    "mujoco>=3.3",
    *MAZE,
]
HUB = ["huggingface_hub>=0.34"]  # hf auth login
NOTEBOOKS = ["nbclient>=0.10", "ipykernel>=6.29", "matplotlib>=3.9"]
DOCS = [
    "sphinx>=8.2",
    "myst-nb>=1.3",  # Markdown and notebooks as pages; brings myst-parser
    "furo>=2025.7",
    "sphinx-copybutton>=0.5.2",
]
GCS = ["google-cloud-storage>=3.1"]  # data and workdirs at gs://
S3 = ["boto3>=1.36"]  # at s3://; with conditional writes
BEAM = ["apache-beam>=2.70"]  # holds protobuf, pyarrow and pillow back
PUSHT = [
    "gym-pusht>=0.1.6",  # brings pymunk below 7, whose callbacks it uses, pygame and OpenCV
    "gymnasium>=1.1",
    "shapely>=2.0",  # vectorised contains_xy
    "matplotlib>=3.9",
]
WANDB = ["wandb>=0.31"]  # finish_timeout, without which an outage holds a run at its end
ONNX = ["jax2onnx>=0.17", "onnxruntime>=1.20"]  # exports a policy, and compares it
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
    *ARM,
    *SERVE,
    *PUSHT,
    *WANDB,
    *HUB,
    *NOTEBOOKS,
    *GCS,
    *S3,
    # Emulators of the stores: gs://, s3:// and the server of the latter.
    *("gcp-storage-emulator>=2026.7", "moto[s3]>=5.1", "flask>=3", "flask-cors>=5"),
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
        "rollout": ROLLOUT,
        "maze": MAZE,
        "bins": DATA + BINS,
        "arm": DATA + ARM,
        "serve": POLICY + SERVE,
        "pusht": DATA + PUSHT,
        "all": DATA + FORMATS + MAZE + BINS + ARM + SERVE + PUSHT,
        "test": DATA + MAZE + TEST,
        "dev": DATA + MAZE + TEST + ["ruff>=0.14", "mypy>=1.18"],
        "docs": DATA + POLICY + NOTEBOOKS + DOCS,
        "bench": ["torch>=2.6", "tensorflow-cpu>=2.18"],
        "wandb": WANDB,
        "hub": HUB,
        "onnx": ONNX,
        "cuda": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "gcs": GCS,
        "s3": S3,
        "beam": DATA + BEAM,
    },
)
