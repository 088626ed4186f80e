# pfstorage as a service, or as a command: flags after the name of the image replace the CMD below.
#
#     docker build --tag pfstorage .
#     docker run --rm --publish 127.0.0.1:4055:4055 --volume $PWD/tokens:/run/secrets/tokens:ro pfstorage
#
# In the container the server listens on all addresses, or no port could be published; who reaches it is
# decided by --publish, so give that an address, as above.

FROM python:3.12-slim

COPY setup.py pyproject.toml README.rst LICENSE /src/
COPY pfstorage /src/pfstorage
RUN pip install --no-cache-dir "/src[keystone]" && rm -r /src

# Relative paths of a message begin in /data; /state is for --stateDir. A new volume takes on who owns them. A numeric
# user can be matched by the owner of what is mounted from the host.
RUN useradd --uid 1000 --create-home pfstorage && install --directory --owner=1000 --group=1000 /data /state
USER 1000:1000
WORKDIR /data

EXPOSE 4055
ENTRYPOINT ["pfstorage"]
# The file of tokens is mounted, readable by nobody but user 1000: pfstorage --makeToken > tokens; chmod 600 tokens
CMD ["--server", "--forever", "--ipSelf", "0.0.0.0", "--enableTokenAuth", "--tokenPath", "/run/secrets/tokens"]
