# One image for every part of Pigeonhole: `docker compose build` makes it; see docs/docker.md.
# torch comes with its CUDA libraries and runs without a GPU too, so CPU and GPU workers share the image.

FROM python:3.12-slim AS tools
ARG PIP_INDEX_URL
RUN pip install --no-cache-dir --root-user-action=ignore uv==0.13.9


# The dependencies: a layer of their own, rebuilt only when the lock changes.
FROM tools AS dependencies
ARG UV_DEFAULT_INDEX
ENV UV_CACHE_DIR=/var/cache/uv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
RUN uv venv /opt/venv
COPY requirements.lock ./
RUN --mount=type=cache,target=/var/cache/uv \
    uv pip install --python /opt/venv --require-hashes --requirements requirements.lock


# Pigeonhole itself as a wheel, built with the pinned and hashed hatchling of the development lock.
FROM tools AS wheel
ARG UV_DEFAULT_INDEX
WORKDIR /source
COPY requirements-dev.lock pyproject.toml README.md LICENSE ./
COPY modeling modeling
COPY orchestrator orchestrator
COPY pigeonhole pigeonhole
COPY workers workers
RUN uv build --wheel --build-constraints requirements-dev.lock --require-hashes --out-dir /wheel


FROM python:3.12-slim
# The user of the processes; pass the ids of the owner of your images and results, as docker-compose.yml does.
ARG PIGEONHOLE_UID=1000
ARG PIGEONHOLE_GID=1000
RUN test "$PIGEONHOLE_UID" -gt 0 \
    && groupadd --non-unique --gid "$PIGEONHOLE_GID" pigeonhole \
    && useradd --non-unique --uid "$PIGEONHOLE_UID" --gid "$PIGEONHOLE_GID" --no-create-home pigeonhole \
    && install --directory --mode=0700 --owner="$PIGEONHOLE_UID" --group="$PIGEONHOLE_GID" /var/lib/pigeonhole /run/pigeonhole
COPY --from=dependencies /opt/venv /opt/venv
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip --python /opt/venv install --no-cache-dir --root-user-action=ignore --no-index --no-deps /wheel/*.whl
# HOME is a tmpfs under docker-compose.yml, so that libraries can cache there although the image is read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    PIGEONHOLE_HOME=/var/lib/pigeonhole
WORKDIR /var/lib/pigeonhole
USER ${PIGEONHOLE_UID}:${PIGEONHOLE_GID}
ENTRYPOINT ["pigeonhole"]
CMD ["--help"]
