# syntax=docker/dockerfile:1
# The inference server on an NVIDIA GPU. Build from the repository's root:
#   docker build -f deploy/docker/triton-is.Dockerfile -t qsm-ai/triton-is .
# The TensorRT engine is tied to the TensorRT in this base and to the GPU, so it is built at the first start, by
# build-engine, into /engines (a volume keeps it); without one the ONNX file is served. The base needs TensorRT 10.12
# or later.
ARG BASE_IMAGE=nvcr.io/nvidia/tritonserver:26.02-py3
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# The network in half precision, from which the engine is built, and what ONNX Runtime answers to reference patches:
# an engine that answers otherwise is not served, and neither is a network that half precision bends.
FROM ${PYTHON_IMAGE} AS reference
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/reference.txt requirements/
RUN python3 -m venv /tools && /tools/bin/python -m pip install --require-hashes -r requirements/reference.txt
COPY model_repository/qsm_vit/1/model.onnx ./
COPY src/qsm_ai/network/mixed_precision.py deploy/docker/reference_patches.py ./
RUN /tools/bin/python mixed_precision.py model.onnx mixed.onnx \
    && /tools/bin/python reference_patches.py model.onnx mixed.onnx /reference

FROM ${BASE_IMAGE} AS run
ARG BASE_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.title="qsm-ai triton-is" \
      org.opencontainers.image.description="Inference server of QSM-AI on an NVIDIA GPU. Research use, not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY model_repository /models
COPY --from=reference /reference /reference
COPY deploy/docker/build-engine deploy/docker/check_engine.py deploy/docker/triton-entrypoint /usr/local/bin/
RUN mkdir -p /engines && chown 10001:10001 /engines
ENV HOME=/tmp \
    QSM_MODELS=/models \
    QSM_ENGINES=/engines \
    QSM_REFERENCE=/reference
USER 10001:10001
WORKDIR /tmp
VOLUME /engines
# gRPC for the backend, HTTP for probes, metrics for Prometheus; all on the private network only.
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# Building the engine takes minutes on the first start.
HEALTHCHECK --interval=15s --timeout=5s --start-period=900s --retries=4 \
    CMD ["curl", "--fail", "--silent", "--max-time", "4", "http://127.0.0.1:8000/v2/health/ready"]
ENTRYPOINT ["triton-entrypoint"]
