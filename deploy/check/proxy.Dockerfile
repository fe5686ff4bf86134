# A stand-in for the proxy's image, which cannot be had without a registry: Debian's nginx with the same configuration.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nginx-light wget \
    && rm -rf /var/lib/apt/lists/*
# Docker answers names at 127.0.0.11, podman at an address of each network's own.
# hadolint ignore=SC2016
RUN printf '%s\n' '#!/bin/sh' \
    'names=$(sed -n "s/^nameserver //p" /etc/resolv.conf | head -n 1)' \
    'sed "s/resolver 127.0.0.11/resolver $names/" /etc/nginx/nginx.conf >/tmp/nginx.conf' \
    'exec nginx -e stderr -c /tmp/nginx.conf -g "daemon off;"' >/entrypoint \
    && chmod 0755 /entrypoint
USER 101:101
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/entrypoint"]
