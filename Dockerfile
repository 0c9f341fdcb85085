# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
# For aws-lc and jemalloc.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --locked --release \
    && mkdir -p /image/usr/local/bin /image/var/lib/weir \
    && cp target/release/weir /image/usr/local/bin/

# No shell, no package manager; certificate authorities and libc are there. `nonroot` is user and group 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/usr/local/bin/weir /usr/local/bin/weir
COPY --from=build --chown=65532:65532 /image/var/lib/weir /var/lib/weir

# Everything that is written is below /var/lib/weir, so the root file system may be read-only.
ENV WEIR__SERVER__LISTEN=0.0.0.0:5000 \
    WEIR__ADMIN__LISTEN=0.0.0.0:5001 \
    WEIR__STORE__PATH=/var/lib/weir
VOLUME /var/lib/weir
WORKDIR /var/lib/weir
USER 65532:65532
EXPOSE 5000 5001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/weir"]
CMD ["serve"]
