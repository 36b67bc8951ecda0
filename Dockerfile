# syntax=docker/dockerfile:1
# One image for the web server, the workers and beat; docker-compose.yml says which of them a container is.
#   docker build -t likestep .                            on the CPU
#   docker build -t likestep:cuda --build-arg DEVICE=cuda .   with CUDA (its libraries come in wheels; the host needs a driver)

FROM python:3.11.14-slim-trixie AS build
ARG DEVICE=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /build
COPY requirements.txt requirements.lock requirements-cuda.lock ./
# Every file is one that the locks have the hash of. But for the CPU build of torch: PyPI's brings CUDA along; the other is a
# tenth of its size and comes from an index of its own.
RUN pip install --no-deps --require-hashes -r requirements.lock && case "$DEVICE" in \
      cpu) pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' requirements.txt)" ;; \
      cuda) pip install --no-deps --require-hashes -r requirements-cuda.lock ;; \
      *) echo "DEVICE: $DEVICE is not cpu or cuda" >&2; exit 1 ;; \
    esac && pip check

FROM python:3.11.14-slim-trixie
# pg_dump and pg_restore 17, for `manage.py backup` and `restore`.
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-client-17 && rm -rf /var/lib/apt/lists/*
# A new named volume takes over the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data likestep && install -d -o likestep -g likestep /data
COPY --from=build /venv /venv
WORKDIR /app
COPY manage.py ./
COPY common common
COPY launcher launcher
COPY models models
COPY trainer trainer
COPY workers workers
COPY templates templates
COPY locale locale
COPY static static
COPY webapp webapp
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    LIKESTEP_DATA=/data STATIC_ROOT=/app/staticfiles HF_HOME=/data/huggingface OMP_WAIT_POLICY=PASSIVE
# The key lives for this line only: settings refuse to load without one.
RUN SECRET_KEY=only-to-collect-the-static-files-of-the-image python manage.py collectstatic --noinput
USER likestep
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "webapp.serve", "--host", "0.0.0.0", "--port", "8000"]
