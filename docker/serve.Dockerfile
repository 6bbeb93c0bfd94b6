# Serves a policy on a CPU.
#
#   docker build -f docker/serve.Dockerfile -t ambient-jax-serve .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/runs/train/mine/policy:/policy:ro" ambient-jax-serve
#   docker run --rm -p 127.0.0.1:8000:8000 ambient-jax-serve --checkpoint=hf://user/name --host=0.0.0.0 --port=8000
#
# /policy is a policy folder (python -m ambient_jax.publish); arguments of your own replace those of
# CMD. Publish another port with -p, not with --port, which the health check does not know.
# A private model: -e HF_TOKEN. Nothing here was built yet: no Docker daemon was at hand.

ARG PYTHON=python:3.12.11-slim-bookworm

FROM ${PYTHON} AS build
RUN python -m venv /opt/venv
ENV PATH="/opt/venv/bin:${PATH}"
WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE ./
COPY ambient_jax ambient_jax
RUN pip install --no-cache-dir '.[serve,policy,hub]'

FROM ${PYTHON}
LABEL org.opencontainers.image.title="ambient_jax policy server" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH="/opt/venv/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    JAX_PLATFORMS=cpu
RUN useradd --create-home --uid 1000 ambient
COPY --from=build /opt/venv /opt/venv
USER ambient
WORKDIR /home/ambient
EXPOSE 8000
STOPSIGNAL SIGTERM
# The server answers when the policy is compiled, which the start period covers.
HEALTHCHECK --interval=10s --timeout=3s --start-period=180s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["python", "-m", "ambient_jax.serve"]
CMD ["--checkpoint=/policy", "--host=0.0.0.0", "--port=8000"]
