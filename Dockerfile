# syntax=docker/dockerfile:1
# The sidecar alone, with pinned versions, as a user without rights:
#
#   docker build -t breaker-sidecar:0.1.0 .
#   docker run --rm --read-only --network container:app breaker-sidecar:0.1.0

# Where the same base is wanted again, by its digest: --build-arg BASE=python:3.11-slim@sha256:…
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN ["python", "-m", "venv", "--without-pip", "/opt/sidecar"]
COPY constraints.txt pyproject.toml setup.cfg README.md LICENSE ./
COPY sidecar sidecar
# The pinned dependencies and our own package as wheels, put into an environment without pip.
RUN ["python", "-m", "pip", "wheel", "--wheel-dir", "/wheels", "--constraint", "constraints.txt", "."]
RUN ["python", "-m", "pip", "--python", "/opt/sidecar/bin/python", "install", "--no-index", "--find-links", "/wheels", "breaker-sidecar"]

FROM ${BASE}
# Nothing in the image installs or builds anything.
RUN ["python", "-m", "pip", "uninstall", "--yes", "--no-input", "--root-user-action=ignore", "pip"]
COPY --from=build /opt/sidecar /opt/sidecar
# Nothing is written: modules were compiled when they were installed, so the root may be read-only.
ENV PATH=/opt/sidecar/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.title=breaker-sidecar org.opencontainers.image.licenses=Apache-2.0
# A number, so that an orchestrator can verify that it isn't root.
USER 65532:65532
# No EXPOSE: it listens on localhost only. Share a network namespace with the application
# (`--network container:app`, `--network host`, or a group of the orchestrator).
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s --retries=3 \
    CMD ["breaker-sidecar", "wait", "--timeout", "2s"]
# SIGTERM, docker's default, is an ordered stop within five seconds.
ENTRYPOINT ["breaker-sidecar"]
CMD ["run"]
