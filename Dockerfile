# One image for every part of Pigeonhole and every user: `docker compose build` makes it; see docs/docker.md.
# torch comes with its CUDA libraries and runs without a GPU too, so CPU and GPU workers share the image.

# Another base must have Python 3.11 to 3.14 as `python3`, with pip; a mirror's name goes here, too.
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS tools
# Empty: the index that pip and uv know.
ARG PIP_INDEX_URL=
# uv trusts the certificates of the image, as pip does: those of a company's mirror are in a base of its own.
ENV UV_SYSTEM_CERTS=1
RUN python3 -m venv /opt/tools && /opt/tools/bin/pip install --no-cache-dir uv==0.13.9


# The dependencies: a layer of their own, rebuilt only when the lock changes.
FROM tools AS dependencies
ARG UV_DEFAULT_INDEX=
# requirements-cpu.lock makes a smaller image that uses no GPU.
ARG PIGEONHOLE_LOCK=requirements.lock
ENV UV_CACHE_DIR=/var/cache/uv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
RUN /opt/tools/bin/uv venv --python python3 /opt/venv
COPY ${PIGEONHOLE_LOCK} ./requirements.lock
# Left out: triton, which compiles for `torch.compile`; headers and static libraries, which compilers read.
RUN --mount=type=cache,target=/var/cache/uv \
    /opt/tools/bin/uv pip install --python /opt/venv --require-hashes --requirements requirements.lock \
    && /opt/tools/bin/uv pip uninstall --python /opt/venv triton \
    && find /opt/venv/lib -type f -name '*.a' -delete \
    && find /opt/venv/lib -type d -name include ! -path '*.dist-info/*' -prune -exec rm -r {} +
# Not empty: the image reads HEIC, too. Of the locks the development lock alone has that extra's package.
ARG PIGEONHOLE_HEIC=
COPY requirements-dev.lock ./
RUN --mount=type=cache,target=/var/cache/uv \
    if [ -n "$PIGEONHOLE_HEIC" ]; then \
        sed -n '/^pillow-heif==/,/[^\\]$/p' requirements-dev.lock > heic.lock \
        && /opt/tools/bin/uv pip install --python /opt/venv --no-deps --require-hashes --requirements heic.lock; \
    fi


# Pigeonhole itself as a wheel, built with the pinned and hashed hatchling of the development lock.
FROM tools AS wheel
ARG UV_DEFAULT_INDEX=
WORKDIR /source
COPY requirements-dev.lock pyproject.toml README.md LICENSE ./
COPY modeling modeling
COPY orchestrator orchestrator
COPY pigeonhole pigeonhole
COPY workers workers
RUN /opt/tools/bin/uv build --wheel --build-constraints requirements-dev.lock --require-hashes --out-dir /wheel


FROM ${PYTHON_IMAGE}
# No user is made here: the processes run as whoever owns the images and results (docker-compose.yml), and as nobody
# in particular without that. A new volume takes its mode from the folder that it is mounted on, and these two are open,
# as /tmp is; Pigeonhole closes what it makes in them.
RUN install --directory --mode=1777 /var/lib/pigeonhole /run/pigeonhole
COPY --from=dependencies /opt/venv /opt/venv
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --python /opt/venv --no-cache --no-index --no-deps --compile-bytecode /wheel/*.whl
# HOME is a tmpfs under docker-compose.yml, so that libraries can cache there although the image is read-only. LOGNAME
# names users who are in no list of users, for libraries that ask.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LOGNAME=pigeonhole \
    PIGEONHOLE_HOME=/var/lib/pigeonhole/home
WORKDIR /var/lib/pigeonhole
USER 65534:65534
ENTRYPOINT ["pigeonhole"]
CMD ["--help"]
