# The daemon alone, on a small Debian, as a user without rights.
FROM rust:1.95-slim-trixie AS build
# SQLite and ring are C.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package fuotad \
 && cp target/release/fuotad /usr/local/bin/

FROM debian:trixie-slim
# Certificates for buckets behind TLS.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/fuotad --create-home fuotad
COPY --from=build /usr/local/bin/fuotad /usr/local/bin/fuotad
USER fuotad
WORKDIR /var/lib/fuotad
# Made here, so that named volumes mounted on them belong to the user.
RUN mkdir data firmware
VOLUME ["/var/lib/fuotad/data", "/var/lib/fuotad/firmware"]
EXPOSE 1883 8080
ENTRYPOINT ["fuotad"]
CMD ["serve"]
