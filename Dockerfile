# pfstorage as a service, or as a command: flags after the name of the image replace the CMD below.
#
#     docker build --tag pfstorage .
#     docker run --rm --publish 127.0.0.1:4055:4055 --volume $PWD/tokens:/run/secrets/tokens:ro pfstorage
#
# In the container the server listens on all addresses, or no port could be published; who reaches it is
# decided by --publish, so give that an address, as above.

# The digest is that of docker-library/repo-info for this tag, of all platforms. A release may take a newer one:
# docker buildx imagetools inspect python:3.12-slim-trixie
FROM python:3.12.14-slim-trixie@sha256:e5c9fa26ffb76e11e0f054f30dc2523a2f9693f0c36c0cf1e39b27e152d899fc

# What is downloaded is what .ci/lock has found, byte by byte. Some of it is built here, by the setuptools of the lock.
COPY requirements.lock requirements-build.lock /src/
RUN pip install --no-cache-dir --require-hashes --requirement /src/requirements-build.lock && \
    pip install --no-cache-dir --require-hashes --no-build-isolation --requirement /src/requirements.lock

COPY setup.py pyproject.toml README.rst LICENSE /src/
COPY pfstorage /src/pfstorage
RUN pip install --no-cache-dir --no-deps --no-build-isolation --no-index /src && pip check && rm -r /src

# Relative paths of a message begin in /data; /state is for --stateDir, /spool for TMPDIR. A new volume takes on who owns
# them. A numeric user can be matched by the owner of what is mounted from the host.
RUN useradd --uid 1000 --create-home pfstorage && install --directory --owner=1000 --group=1000 /data /state /spool
USER 1000:1000
WORKDIR /data

EXPOSE 4055
ENTRYPOINT ["pfstorage"]
# The file of tokens is mounted, readable by nobody but user 1000: pfstorage --makeToken > tokens; chmod 600 tokens
CMD ["--server", "--forever", "--ipSelf", "0.0.0.0", "--enableTokenAuth", "--tokenPath", "/run/secrets/tokens"]
