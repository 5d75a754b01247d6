# The image of receiver and relay, for docker, podman and buildah:  docker build -t whatsapp-webhook:0.1.0 .
# The same commit on the same base image gives the same files, and the same image if the builder sets the times:
#   buildah build --timestamp 0 .    podman build --timestamp 0 .
#   SOURCE_DATE_EPOCH=0 docker buildx build --output type=docker,rewrite-timestamp=true .
# A release passes the digest of this image.
ARG BASE=docker.io/library/python:3.13-slim-trixie
FROM $BASE AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --quiet --no-compile --require-hashes --only-binary :all: -r requirements.lock \
 && pip install --quiet --require-hashes --only-binary :all: -r requirements-build.lock
COPY . .
# hadolint ignore=DL3013
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/venv/bin/python install --quiet --no-compile --no-deps --no-index --find-links /wheels whatsapp-webhook \
 # Remove files that only builds and tests of libraries need. Compile bytecode now: the image is read-only at run time.
 && find /opt/venv -depth \( -name tests -o -name testing -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) \
      -not -path '*/opentelemetry/*' -exec rm -rf {} + \
 && PYTHONHASHSEED=0 /opt/venv/bin/python -m compileall -q -j 1 --invalidation-mode unchecked-hash /opt/venv/lib \
 && find /opt/venv -exec touch --no-dereference --date=@0 {} +

FROM $BASE

ARG BASE
LABEL org.opencontainers.image.title="whatsapp-webhook" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.description="Receives WhatsApp webhooks from Meta, stores every event before it answers 200, and delivers the events" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="$BASE"
COPY --from=build /opt/venv /opt/venv
# Remove pip: nothing is installed at run time. The two directories are for a container without volumes.
RUN find / -xdev -depth \( -path '*/python3*/pip' -o -path '*/python3*/pip-*.dist-info' -o -path '*/python3*/ensurepip' \) -exec rm -rf {} + \
 && rm -f /usr/local/bin/pip* /usr/bin/pip* \
 && echo 'whatsapp-webhook:x:10001:10001::/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'whatsapp-webhook:x:10001:' >> /etc/group \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/whatsapp-webhook /run/whatsapp-webhook
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["whatsapp-webhook"]
CMD ["serve"]
