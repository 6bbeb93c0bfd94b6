# Trains policies on NVIDIA GPUs.
#
#   docker build -f docker/train.Dockerfile -t ambient-jax-train .
#   docker run --rm --gpus all -v /data:/data:ro -v "$PWD/runs:/app/runs" \
#     -v "$PWD/my_config.py:/app/my_config.py:ro" ambient-jax-train \
#     --config=my_config.py --workdir=runs/mine
#
# The host needs a driver for CUDA 12 and the NVIDIA container toolkit; CUDA itself comes with JAX's
# wheels. The user has id 1000 and must be able to write runs/ (or give --user "$(id -u):$(id -g)").
# Commands beside training: --entrypoint python ... -m ambient_jax.annotate.
# Nothing here was built yet: no Docker daemon was at hand.

ARG PYTHON=python:3.12.11-slim-bookworm

FROM ${PYTHON} AS build
RUN python -m venv /opt/venv
ENV PATH="/opt/venv/bin:${PATH}"
WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE ./
COPY ambient_jax ambient_jax
RUN pip install --no-cache-dir '.[cuda,formats,wandb,hub]'

FROM ${PYTHON}
LABEL org.opencontainers.image.title="ambient_jax training" \
      org.opencontainers.image.licenses="Apache-2.0"
# Statistics of the data are kept with the runs, as the container is not.
ENV PATH="/opt/venv/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    AMBIENT_JAX_CACHE=/app/runs/.statistics
RUN useradd --create-home --uid 1000 ambient && install -d -o ambient -g ambient /app/runs
COPY --from=build /opt/venv /opt/venv
USER ambient
WORKDIR /app
# SIGTERM saves a checkpoint; the same command carries on. Give it time: docker stop --time 120.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "ambient_jax.train"]
CMD ["--help"]
