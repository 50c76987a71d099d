# As Dockerfile, for a Python program. Its packages and ours are in environments of their own.

FROM debian:bookworm-slim AS wheels
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip
COPY . /src
# For attestation, KMS and TLS: docker build --build-arg 'EXTRAS=[trust]' …
ARG EXTRAS=
RUN python3 -m pip wheel --wheel-dir /wheels --constraint /src/constraints.txt "/src$EXTRAS"

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --no-create-home app
COPY configs/image/install.sh configs/image/enclave.yaml /tmp/
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    /tmp/install.sh /wheels /tmp/enclave.yaml && rm /tmp/install.sh /tmp/enclave.yaml
ENTRYPOINT ["vsockproxy", "enclave", "--take-over", "--"]
CMD ["python3", "-c", "from urllib.request import urlopen; print(urlopen('https://example.com/').read())"]
